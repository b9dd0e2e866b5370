//! `bind`, `rebind`, `unbind`, `create-subcontext` and `destroy-subcontext`.

use daymark_client::proto::{Attributes, InvalidObject, Name, Object, Written};

use crate::args::{Asking, BindArgs, CreateSubcontextArgs, NameArgs, ObjectArgs, RebindArgs, UnbindArgs};
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
        } => Ok(Object::Queue { address }),
        ObjectArgs {
            topic: Some(address), ..
        } => Ok(Object::Topic { address }),
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
