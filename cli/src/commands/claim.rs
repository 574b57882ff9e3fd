//! `muster claim`: tokens by which devices enrol, and the factory list. The server gives a token's id and
//! secret; what the device is to believe in comes from what is pinned here, never from the server.

mod bulk;
pub mod factory;

use std::path::PathBuf;

use muster_shared::Digest;
use muster_shared::api::{Claim, NewClaim};
use muster_shared::claim::ClaimToken;
use muster_shared::id::{LabelText, Labels, UnixMs};
use muster_shared::quantity::Millis;
use muster_shared::release::{ReleaseVersion, VerifiedRelease};
use reqwest::Method;
use serde::Serialize;

use crate::context::{Context, Session};
use crate::error::{Attempt as _, Failure, Result, next_move};
use crate::files::{self, Readable};
use crate::install::Line;
use crate::output::{self, Format, date, now_ms};

/// The label that says at which site a device stands.
const SITE_LABEL: &str = "site";

/// Arguments of `muster claim`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Make a claim and print its token
    New(Box<New>),
    /// List the claims
    List {
        /// How to print
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
    },
    /// Make a claim count no more; devices that it enrolled stay
    Revoke {
        /// The claim's id, as `muster claim list` shows it
        id: String,
    },
    /// Keys that enrol without a claim
    #[command(subcommand)]
    Factory(factory::Command),
}

#[derive(clap::Args)]
struct New {
    /// How many devices it may enrol
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,
    /// How long it lives
    #[arg(long, default_value = "1d", value_name = "D")]
    ttl: Millis,
    /// A label that every device enrolled with it gets
    #[arg(long = "label", value_name = "K=V", value_parser = label)]
    labels: Vec<(LabelText, LabelText)>,
    /// Where the devices stand: the same as --label site=S
    #[arg(long, value_name = "S")]
    site: Option<LabelText>,
    /// A label that a device may set itself as it enrols; may be repeated
    #[arg(long = "may-label", value_name = "K", conflicts_with = "may_label_anything")]
    may_label: Vec<LabelText>,
    /// Let devices set any label
    #[arg(long)]
    may_label_anything: bool,
    /// Let no device in before `muster approve DEVICE`
    #[arg(long)]
    needs_approval: bool,
    /// Write the token to a file that only you can read; of many devices: the folder for claims and labels
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print a line that installs the agent's package on a Debian machine and enrols it: for a shell there
    #[arg(long)]
    install: bool,
    /// The release that the line installs; by default the one that the control plane offers
    #[arg(long, value_name = "VERSION", requires = "install")]
    release: Option<ReleaseVersion>,
    #[command(flatten)]
    many: bulk::Many,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View<'a> {
    id: &'a str,
    token: &'a str,
    uses: u32,
    expires_ms: UnixMs,
    /// The line that installs and enrols.
    #[serde(skip_serializing_if = "Option::is_none")]
    install: Option<&'a str>,
}

pub async fn run(args: Args, session: &Session) -> Result<()> {
    let new = match args.command {
        Command::New(new) => new,
        Command::List { output } => return super::get::claims(output, session).await,
        Command::Revoke { id } => return revoke(&id, session).await,
        Command::Factory(command) => return factory::run(command, session).await,
    };
    if new.many.is_asked() {
        return bulk::run(&new, session).await;
    }
    let (_, context) = session.context()?;
    // Without a root no device could believe anything: said before anything is made.
    let root = context.pinned_root()?;
    let seconds = new.ttl.0 / 1000;
    if seconds == 0 {
        return Err(Failure::new("a claim must live for a second at least").hint("say for instance --ttl 1h"));
    }
    let labels = labels(&new)?;
    let asked = NewClaim {
        uses: new.uses,
        ttl_seconds: seconds,
        labels,
        may_label: new.may_label.clone(),
        may_label_anything: new.may_label_anything,
        needs_approval: new.needs_approval,
    };
    let client = context.client()?;
    let release = match new.install {
        true => {
            let release = super::release::to_install(&client, root, new.release.as_ref()).await?;
            // Where there can be no line there is to be no claim either.
            let (claim, root) = (placeholder(&context, root.digest), root.digest);
            spell(&context, &release, root, &claim)?;
            Some(release)
        }
        false => None,
    };
    let issued_ms = now_ms();
    let claim: Claim = client.send_json(Method::POST, "/claims", &asked).await.attempt(|| "cannot make a claim")?;
    let token = ClaimToken {
        id: bytes(&claim.id)?,
        secret: bytes(&claim.secret)?,
        root: root.digest,
        ca: context.ca_fingerprint,
        issued_ms,
    };
    let line = release.map(|release| spell(&context, &release, root.digest, &token));
    tell(&new, &context, &claim, (&token.to_string(), line.transpose()?.as_deref()))
}

/// The labels that the flags name.
fn labels(new: &New) -> Result<Labels> {
    let mut labels = Labels::from_iter(new.labels.clone());
    if let Some(site) = &new.site {
        let key = SITE_LABEL.parse::<LabelText>().attempt(|| "cannot name the site")?;
        if labels.insert(key, site.clone()).is_some_and(|other| other != *site) {
            return Err(Failure::new("the claim names two sites").hint("give --site or --label site=…, not both"));
        }
    }
    Ok(labels)
}

async fn revoke(id: &str, session: &Session) -> Result<()> {
    bytes::<8>(id).map_err(|_| {
        Failure::new(format!("{id:?} is no claim's id"))
            .hint("`muster claim list` shows the ids of those that there are")
    })?;
    session
        .client()?
        .command(Method::POST, &format!("/claims/{id}/revoke"))
        .await
        .attempt(|| format!("cannot revoke claim {id}"))
        .map_err(|failure| failure.hint_if_none("`muster claim list` shows those that there are"))?;
    output::print_line(format_args!("claim {id} counts no more"))
}

fn spell(context: &Context, release: &VerifiedRelease, root: Digest, claim: &ClaimToken) -> Result<String> {
    Line { url: &context.url, release: release.release(), root, claim }
        .spell()
        .attempt(|| "cannot make the line that installs")
}

/// A claim of no worth, as long as any.
fn placeholder(context: &Context, root: Digest) -> ClaimToken {
    ClaimToken { id: [0; 8], secret: [0; 16], root, ca: context.ca_fingerprint, issued_ms: now_ms() }
}

fn tell(new: &New, context: &Context, claim: &Claim, (token, line): (&str, Option<&str>)) -> Result<()> {
    let printed = line.unwrap_or(token);
    if let Some(path) = &new.output {
        files::replace(path, format!("{printed}\n").as_bytes(), Readable::ByOwner)
            .attempt(|| format!("cannot write the token to {}", path.display()))?;
    }
    if new.json {
        let (id, uses, expires_ms) = (&claim.id, new.uses, claim.expires_ms);
        output::print_json(&View { id, token, uses, expires_ms, install: line })?;
    } else if new.output.is_none() {
        output::print_line(printed)?;
    }
    let devices = if new.uses == 1 { "one device".to_owned() } else { format!("{} devices", new.uses) };
    let until = date(claim.expires_ms);
    if line.is_some() {
        let how = match &new.output {
            Some(path) => format!("sh {}", path.display()),
            None => "paste the line into a shell there".to_owned(),
        };
        next_move(format_args!("good for {devices} until {until}, for whoever has it; on the device: {how}"));
        return Ok(());
    }
    let token = match &new.output {
        Some(path) => format!("\"$(cat {})\"", path.display()),
        None => "TOKEN".to_owned(),
    };
    next_move(format_args!(
        "good for {devices} until {until}; on the device: muster-agent enrol --url {} --claim {token} --data DIR",
        context.url
    ));
    Ok(())
}

fn bytes<const N: usize>(text: &str) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).attempt(|| "the control plane gave a claim that cannot be read")?;
    Ok(bytes)
}

/// A label as it is typed.
pub fn label(text: &str) -> Result<(LabelText, LabelText), String> {
    let (key, value) = text.split_once('=').ok_or("write it as key=value")?;
    let part = |part: &str| part.parse::<LabelText>().map_err(|error| error.to_string());
    Ok((part(key)?, part(value)?))
}
