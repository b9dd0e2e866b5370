//! Names, contexts, attributes, searches, transactions and watches over HTTP.

use std::sync::Arc;

use daymark_naming_proto::{
    NamingError, ReadOptions, Request, Revision, Scope, Search, TransactWrite, Write,
};
use hyper::header::HeaderName;

use super::call::{Answered, Call};
use super::{body, text, watch as sse};
use crate::mailbox::Mailbox;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

pub(super) async fn lookup(call: Call) -> Answered {
    let (name, options) = (call.name()?, call.read_options()?);
    let request = match call.text("links") {
        None | Some("yes") => Request::Lookup { name, options },
        Some("no") => Request::LookupLink { name, options },
        Some(other) => return Err(NamingError::invalid(format!("links={other:?}: yes or no")).into()),
    };
    call.ask(request).await
}

pub(super) async fn list(call: Call) -> Answered {
    let (name, options) = (call.name()?, call.read_options()?);
    let request = match call.parsed::<bool>("bindings")? {
        Some(true) => Request::ListBindings { name, options },
        Some(false) | None => Request::List { name, options },
    };
    call.ask(request).await
}

pub(super) async fn attributes(call: Call) -> Answered {
    let (name, options) = (call.name()?, call.read_options()?);
    let ids = call.list("ids");
    call.ask(Request::Attributes { name, ids, options }).await
}

pub(super) async fn search(call: Call) -> Answered {
    let name = call.name()?;
    let filter = call
        .text("filter")
        .ok_or_else(|| NamingError::invalid("filter is missing"))?;
    let search = Search {
        scope: call.word::<Scope>("scope")?,
        filter: filter.parse().map_err(NamingError::from)?,
        size_limit: call.parsed("limit")?,
        time_limit_ms: call.text("time").map(text::milliseconds).transpose()?,
        ids: call.list("ids"),
    };
    let options = ReadOptions {
        wait_ms: None,
        ..call.read_options()?
    };
    let request = Request::Search {
        name,
        search,
        options,
    };
    call.ask(request).await
}

pub(super) async fn bind(mut call: Call) -> Answered {
    let name = call.name()?;
    let content = call.content().await?;
    let (object, attributes) = body::bound(&content)?;
    let bind = Write::Bind {
        name,
        object,
        attributes: attributes.unwrap_or_default(),
    };
    call.write(bind, content.len()).await
}

pub(super) async fn rebind(mut call: Call) -> Answered {
    let (name, expected) = (call.name()?, text::expected(&call.headers)?);
    let content = call.content().await?;
    let (object, attributes) = body::bound(&content)?;
    let rebind = Write::Rebind {
        name,
        object,
        attributes,
        expected,
    };
    call.write(rebind, content.len()).await
}

pub(super) async fn unbind(call: Call) -> Answered {
    let unbind = Write::Unbind {
        name: call.name()?,
        expected: text::expected(&call.headers)?,
    };
    call.write(unbind, 0).await
}

pub(super) async fn create_subcontext(mut call: Call) -> Answered {
    let name = call.name()?;
    let content = call.content().await?;
    let subcontext: body::Subcontext = if content.is_empty() {
        body::Subcontext::default()
    } else {
        body::json(&content)?
    };
    let attributes = subcontext.attributes;
    call.write(Write::CreateSubcontext { name, attributes }, content.len())
        .await
}

pub(super) async fn destroy_subcontext(call: Call) -> Answered {
    let name = call.name()?;
    call.write(Write::DestroySubcontext { name }, 0).await
}

pub(super) async fn modify_attributes(mut call: Call) -> Answered {
    let (name, expected) = (call.name()?, text::expected(&call.headers)?);
    let (modifications, bytes) = call.document().await?;
    let modify = Write::ModifyAttributes {
        name,
        modifications,
        expected,
    };
    call.write(modify, bytes).await
}

pub(super) async fn rename(mut call: Call) -> Answered {
    let expected = text::expected(&call.headers)?;
    let (rename, bytes) = call.document::<body::Rename>().await?;
    let (name, target) = rename.names()?;
    let rename = Write::Rename {
        name,
        target,
        expected,
    };
    call.write(rename, bytes).await
}

pub(super) async fn transact(mut call: Call) -> Answered {
    let (writes, bytes) = call.document::<Vec<TransactWrite>>().await?;
    call.write(Write::Transact { writes }, bytes).await
}

pub(super) async fn watch(call: Call) -> Answered {
    let (name, scope) = (call.name()?, call.word::<Scope>("scope")?);
    let last = text::text_of(&call.headers, &LAST_EVENT_ID)?.filter(|last| !last.is_empty());
    let last = last
        .map(|last| last.parse::<Revision>())
        .transpose()
        .map_err(|_| NamingError::invalid("Last-Event-ID is not a revision"))?;
    let from = match last {
        Some(last) => Some(last),
        None => call.parsed("from")?,
    };
    let limits = &call.dispatcher.limits;
    let mailbox = Arc::new(Mailbox::new(limits.watch_buffer_bytes_max));
    let watching = call.dispatcher.watch(name, scope, from, mailbox.clone())?;
    Ok(sse::response(watching, mailbox, limits.keepalive))
}
