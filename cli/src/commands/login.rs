//! `muster login`: a one-time code becomes a token, and what is believed of this control plane is
//! pinned: its CA always, its root if it has one already.

use muster_shared::Digest;
use muster_shared::api::{Info, Login, Token};
use muster_shared::root::TrustedRoot;
use muster_shared::signing::Envelope;
use reqwest::Method;
use serde::Serialize;

use super::ask;
use crate::client::Client;
use crate::context::{Context, Contexts, PinnedRoot, Session};
use crate::error::{Attempt as _, Failure, Result, next_move, warn};
use crate::output::{self, TextOrJson};
use crate::trust;

/// Arguments of `muster login`.
#[derive(clap::Args)]
pub struct Args {
    /// https://HOST:PORT, as the control plane printed it
    url: String,
    /// SHA-256 of the control plane's CA certificate, as it printed it (plain http on loopback: may be left out)
    #[arg(long, value_name = "F", value_parser = Digest::typed)]
    ca_fingerprint: Option<Digest>,
    /// The one-time code that the control plane printed; asked for on a terminal
    #[arg(long, env = "MUSTER_CODE", hide_env_values = true)]
    code: Option<String>,
    /// What to call this control plane; by default its host
    #[arg(long)]
    name: Option<String>,
    /// The digest of the fleet's root, from whoever made it with `muster keys init`
    #[arg(long, value_name = "DIGEST", value_parser = Digest::typed)]
    root_digest: Option<Digest>,
    /// Pin whatever root the control plane shows (only where nobody can stand in between)
    #[arg(long, conflicts_with = "root_digest")]
    trust_root_on_first_use: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: TextOrJson,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LoggedIn<'a> {
    context: &'a str,
    url: &'a str,
    user: &'a str,
    fleet: Option<&'a muster_shared::FleetId>,
    root: Option<PinnedRoot>,
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    let attempt = || format!("cannot log in to {}", args.url);
    let client = Client::open(&args.url, args.ca_fingerprint, None).attempt(attempt)?;
    let info: Info = client.get("/info").await.attempt(attempt)?;
    let ca_fingerprint = ca(&args, &info).attempt(attempt)?;

    let mut contexts = Contexts::load(&session.home)?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => default_name(&contexts, client.url()),
    };
    // The code can be spent only once, so all that may fail comes first.
    let roots = trust::roots(&client).await.attempt(attempt)?;
    let known = contexts.contexts.get(&name).filter(|known| known.ca_fingerprint == ca_fingerprint);
    let root = choose_root(&args, &roots, known.and_then(|known| known.root)).attempt(attempt)?;
    let code = match &args.code {
        Some(code) => code.trim().to_owned(),
        None => ask("one-time code: ")?.filter(|code| !code.is_empty()).ok_or_else(|| {
            Failure::new(format!("{}: no code is given", attempt()))
                .hint("pass the code that the control plane printed at its first start as --code or MUSTER_CODE")
        })?,
    };
    let answer: Token = client.send_json(Method::POST, "/login", &Login { code }).await.attempt(attempt)?;

    if let Some((envelope, trusted)) = &root {
        trust::remember(&session.home, envelope, trusted)?;
    }
    let root = root.map(|(_, trusted)| trusted);
    let context = Context {
        url: client.url().to_owned(),
        ca_fingerprint,
        token: answer.token,
        fleet: root.as_ref().map(|root| root.root().fleet.clone()),
        root: root.as_ref().map(trust::pin_of),
    };
    contexts.current = Some(name.clone());
    contexts.contexts.insert(name.clone(), context.clone());
    contexts.save(&session.home)?;
    tell(args.output, &name, &context, &answer.user)
}

fn tell(output: TextOrJson, name: &str, context: &Context, user: &str) -> Result<()> {
    let Context { url, fleet, root, .. } = context;
    match output {
        TextOrJson::Json => {
            output::print_json(&LoggedIn { context: name, url, user, fleet: fleet.as_ref(), root: *root })?
        }
        TextOrJson::Text => {
            output::print_line(format_args!("logged in to {url} as {user}; this is now context {name:?}"))?;
            if let (Some(fleet), Some(root)) = (fleet, root) {
                output::print_line(format_args!("fleet {fleet}, root {} pinned: {}", root.version, root.digest))?;
            }
        }
    }
    if root.is_none() {
        next_move("this control plane has no root yet and refuses devices: run `muster keys init`");
    }
    Ok(())
}

/// The CA's fingerprint as typed, which must be the one that the control plane says is its own.
fn ca(args: &Args, info: &Info) -> Result<Digest> {
    match args.ca_fingerprint {
        Some(typed) if typed == info.ca_fingerprint => Ok(typed),
        Some(_) => Err(Failure::new(format!("the control plane's CA is {}, another one", info.ca_fingerprint))
            .hint("compare --ca-fingerprint with what the control plane printed")),
        None => {
            warn(format_args!("over loopback, taking the CA's fingerprint as it comes: {}", info.ca_fingerprint));
            Ok(info.ca_fingerprint)
        }
    }
}

/// The root to pin, by what was said, what was pinned before, or what a person answers.
fn choose_root(
    args: &Args,
    roots: &[Envelope],
    pinned_before: Option<PinnedRoot>,
) -> Result<Option<(Envelope, TrustedRoot)>> {
    let pinned = args.root_digest.or(pinned_before.map(|root| root.digest));
    if let Some(digest) = pinned {
        let found = roots.iter().find(|root| Digest::of(&root.payload) == digest);
        let envelope = found.ok_or_else(|| {
            Failure::new(format!("none of its {} roots has the digest {digest}", roots.len()))
                .hint("this is not the fleet that you think it is, or it has lost its root: do not send devices here")
        })?;
        let trusted = TrustedRoot::pinned(envelope, digest).attempt(|| "its root is not believed")?;
        return Ok(Some((envelope.clone(), trusted)));
    }
    let Some(newest) = trust::newest_unverified(roots)? else { return Ok(None) };
    let (fleet, version, digest) = (&newest.root().fleet, newest.root().version, newest.digest());
    if !args.trust_root_on_first_use {
        let question = format!(
            "This control plane has root {version} of fleet {fleet}, with the digest\n  {digest}\n\
             Compare it with what `muster trust show` says where the root was made.\nIs it the same? [yes/no] "
        );
        let answer = ask(&question)?;
        if !answer.is_some_and(|answer| answer.eq_ignore_ascii_case("yes")) {
            let text = format!("root {version} of fleet {fleet} with the digest {digest} is not pinned");
            return Err(Failure::new(text).hint(
                "compare the digest with whoever made the root, then pass it as --root-digest; or pass \
                 --trust-root-on-first-use where nobody can stand in between",
            ));
        }
    }
    Ok(roots.last().map(|envelope| (envelope.clone(), newest)))
}

/// The host, with the port where another control plane has the host already.
fn default_name(contexts: &Contexts, url: &str) -> String {
    if let Some((name, _)) = contexts.contexts.iter().find(|(_, context)| context.url == url) {
        return name.clone();
    }
    let authority = url.split("://").nth(1).unwrap_or(url);
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    if contexts.contexts.contains_key(host) { authority.to_owned() } else { host.to_owned() }
}
