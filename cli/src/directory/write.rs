//! The verbs that write names: `bind`, `rebind`, `unbind`, `rename`, `modify-attributes`, `transact`, `create-subcontext`
//! and `destroy-subcontext`.

use std::io::Read;

use daymark_client::proto::{
    Attributes, InvalidObject, Modification, ModificationOp, Name, Object, TransactWrite, Written,
};

use crate::args::{
    Asking, BindArgs, CreateSubcontextArgs, ModifyAttributesArgs, NameArgs, ObjectArgs, RebindArgs,
    RenameArgs, TransactArgs, UnbindArgs,
};
use crate::failure::Failure;
use crate::output::Output;
use crate::provider;

use super::show;

/// `daymark bind`.
///
/// # Errors
/// What the directory answered, or that nobody answered.
pub(crate) async fn bind(args: BindArgs) -> Result<(), Failure> {
    let object = object(args.object)?;
    let naming = provider::naming(&args.asking)?;
    let written = naming
        .bind(&args.name, object, attributes(args.attributes))
        .await?;
    show(&args.asking, "bound", &args.name, &written)
}

/// `daymark rebind`.
///
/// # Errors
/// What the directory answered, or that nobody answered.
pub(crate) async fn rebind(args: RebindArgs) -> Result<(), Failure> {
    let object = object(args.object)?;
    let naming = provider::naming(&args.asking)?;
    let attributes = (!args.attributes.is_empty()).then(|| attributes(args.attributes));
    let written = naming
        .rebind(&args.name, object, attributes, args.if_revision)
        .await?;
    show(&args.asking, "bound", &args.name, &written)
}

/// `daymark unbind`.
///
/// # Errors
/// What the directory answered, or that nobody answered.
pub(crate) async fn unbind(args: UnbindArgs) -> Result<(), Failure> {
    let naming = provider::naming(&args.asking)?;
    let written = naming.unbind(&args.name, args.if_revision).await?;
    show(&args.asking, "unbound", &args.name, &written)
}

/// `daymark create-subcontext`.
///
/// # Errors
/// What the directory answered, or that nobody answered.
pub(crate) async fn create_subcontext(args: CreateSubcontextArgs) -> Result<(), Failure> {
    let naming = provider::naming(&args.asking)?;
    let written = naming
        .create_subcontext(&args.name, attributes(args.attributes))
        .await?;
    show(&args.asking, "created", &args.name, &written)
}

/// `daymark destroy-subcontext`.
///
/// # Errors
/// What the directory answered, or that nobody answered.
pub(crate) async fn destroy_subcontext(args: NameArgs) -> Result<(), Failure> {
    let naming = provider::naming(&args.asking)?;
    let written = naming.destroy_subcontext(&args.name).await?;
    show(&args.asking, "destroyed", &args.name, &written)
}

/// `daymark rename`.
///
/// # Errors
/// What the directory answered, or that nobody answered.
pub(crate) async fn rename(args: RenameArgs) -> Result<(), Failure> {
    let naming = provider::naming(&args.asking)?;
    let written = naming.rename(&args.name, &args.target, args.if_revision).await?;
    show(&args.asking, "moved to", &args.target, &written)
}

/// `daymark modify-attributes`.
///
/// # Errors
/// What the directory answered, or that nobody answered.
pub(crate) async fn modify_attributes(args: ModifyAttributesArgs) -> Result<(), Failure> {
    let modifications = modifications(&args);
    if modifications.is_empty() {
        return Err(Failure::usage("InvalidRequest", "there is nothing to change")
            .hint("--add ID=VALUE, --replace ID=VALUE or --remove ID[=VALUE]"));
    }
    let naming = provider::naming(&args.asking)?;
    let written = naming
        .modify_attributes(&args.name, modifications, args.if_revision)
        .await?;
    show(&args.asking, "changed", &args.name, &written)
}

/// `daymark transact`.
///
/// # Errors
/// That the writes cannot be read; what the directory answered, or that nobody answered.
pub(crate) async fn transact(args: TransactArgs) -> Result<(), Failure> {
    let writes = writes(args.writes)?;
    let count = writes.len();
    let naming = provider::naming(&args.asking)?;
    let written = naming.transact(writes).await?;
    Output::new(args.asking.json).show(&written, |written| {
        if written.changed {
            format!("done, {count} writes at revision {}", written.revision)
        } else {
            format!(
                "nothing to do: everything stays as it is, revision {}",
                written.revision
            )
        }
    })
}

/// More than any server takes in one request.
const WRITES_BYTES_MAX: u64 = 16 << 20;

fn writes(given: String) -> Result<Vec<TransactWrite>, Failure> {
    let json = match given.strip_prefix('@') {
        Some(path) => {
            let file = std::fs::File::open(path);
            text_of(path, file.and_then(read_bounded))?
        }
        None if given == "-" => text_of("standard input", read_bounded(std::io::stdin()))?,
        None => given,
    };
    serde_json::from_str(&json).map_err(|error| {
        Failure::usage("InvalidRequest", format!("not a list of writes: {error}"))
            .hint(r#"for example '[{"unbind": {"name": "a"}}]'"#)
    })
}

fn read_bounded(source: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    source.take(WRITES_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn text_of(source: &str, read: std::io::Result<String>) -> Result<String, Failure> {
    read.map_err(|error| Failure::usage("InvalidRequest", format!("{source}: {error}")))
}

/// What the flags say, one modification for each attribute and operation.
fn modifications(args: &ModifyAttributesArgs) -> Vec<Modification> {
    let mut all: Vec<Modification> = Vec::new();
    let mut add = |op, id: &str, value: Option<&str>| {
        let same = |known: &&mut Modification| known.op == op && known.id.eq_ignore_ascii_case(id);
        let values = value.map(str::to_owned);
        match all.iter_mut().find(same) {
            // Without a value the whole attribute goes, whatever else is said of it.
            Some(known) if known.values.is_empty() || values.is_none() => known.values.clear(),
            Some(known) => known.values.extend(values),
            None => all.push(Modification {
                op,
                id: id.to_owned(),
                values: values.into_iter().collect(),
            }),
        }
    };
    for (id, value) in &args.add {
        add(ModificationOp::Add, id, Some(value));
    }
    for (id, value) in &args.replace {
        add(ModificationOp::Replace, id, Some(value));
    }
    for removed in &args.remove {
        match removed.split_once('=') {
            Some((id, value)) => add(ModificationOp::Remove, id, Some(value)),
            None => add(ModificationOp::Remove, removed, None),
        }
    }
    all
}

fn show(asking: &Asking, done: &str, name: &Name, written: &Written) -> Result<(), Failure> {
    Output::new(asking.json).show(written, |written| {
        if written.changed {
            format!("{done} {} at revision {}", show::name(name), written.revision)
        } else {
            format!(
                "nothing to do: {} stays as it is, revision {}",
                show::name(name),
                written.revision
            )
        }
    })
}

/// The one object these arguments describe; the command line lets exactly one through.
fn object(args: ObjectArgs) -> Result<Object, Failure> {
    let invalid = |error: InvalidObject| {
        Failure::usage("InvalidObject", error).hint(r#"for example '{"type":"queue","address":"examples"}'"#)
    };
    match args {
        ObjectArgs {
            queue: Some(address), ..
        } => Ok(Object::Queue {
            address: address.into(),
        }),
        ObjectArgs {
            topic: Some(address), ..
        } => Ok(Object::Topic {
            address: address.into(),
        }),
        ObjectArgs {
            link: Some(target), ..
        } => Ok(Object::Link { target }),
        ObjectArgs {
            value: Some(json), ..
        } => value(&json),
        ObjectArgs {
            object: Some(json), ..
        } => Object::from_json(json.as_bytes()).map_err(invalid),
        ObjectArgs { object: None, .. } => Err(Failure::usage("InvalidObject", "there is nothing to bind")),
    }
}

fn value(json: &str) -> Result<Object, Failure> {
    let value: serde_json::Value = serde_json::from_str(json).map_err(|error| {
        Failure::usage("InvalidObject", format!("--value is not JSON: {error}"))
            .hint(r#"a text needs its quotes: --value '"text"'"#)
    })?;
    Ok(Object::Value {
        json: value.to_string().into(),
    })
}

/// Attributes in the order given; a key that comes again gets one more value.
fn attributes(pairs: Vec<(String, String)>) -> Attributes {
    let mut attributes = Attributes::new();
    for (key, value) in pairs {
        let mut values = attributes
            .values(&key)
            .map(|values| values.map(str::to_owned).collect::<Vec<_>>())
            .unwrap_or_default();
        values.push(value);
        attributes.set(&key, values);
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_given_twice_has_both_values() {
        let given = [("a", "1"), ("b", "2"), ("A", "3")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let attributes = attributes(given.to_vec());
        assert_eq!(
            attributes.values("a").map(Iterator::collect::<Vec<_>>),
            Some(vec!["1", "3"])
        );
        assert_eq!(attributes.len(), 2);
    }

    #[test]
    fn a_value_that_is_not_json_is_refused_with_a_hint() {
        assert!(value("text").is_err());
        assert_eq!(value("[1, 2]").ok(), Some(Object::Value { json: "[1,2]".into() }));
    }
}
