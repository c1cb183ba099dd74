//! `hashpact set`: this member's hash sets and who may read them.

use std::str::FromStr;

use clap::{Args, Subcommand};
use data_encoding::HEXLOWER;
use hashpact_api::wire;
use hashpact_core::id::{IdError, Slug};
use serde::Serialize;

use super::Context;
use super::client::{Client, connect_or_embed};
use super::error::CliError;
use super::output::{count, counted, stamp, table, time};
use super::values::{Grantee, SetReference};

/// Create hash sets, list them, and say who may read them
#[derive(Debug, Args)]
pub struct SetArgs {
    /// What to do
    #[command(subcommand)]
    pub command: SetCommand,
}

/// What to do with sets.
#[derive(Debug, Subcommand)]
pub enum SetCommand {
    /// Create a set of this member; nobody may read it until it is granted
    Create(CreateArgs),
    /// List the sets that this node holds, own and others'
    List,
    /// Show one set: description, terms, grants, size, head
    Show {
        /// SET of this member, or MEMBER/SET
        set: SetReference,
    },
    /// Let a member, a group or everybody read a set
    Grant {
        /// A set of this member
        set: SetReference,
        /// Who: MEMBER, group:NAME or all; with :relay they may serve it onward
        #[arg(required = true, value_name = "WHO[:relay]")]
        grantees: Vec<GrantArg>,
        /// All of them may serve it onward
        #[arg(long)]
        relay: bool,
    },
    /// End a grant: those members stop matching and drop what they hold
    Revoke {
        /// A set of this member
        set: SetReference,
        /// Who: MEMBER, group:NAME or all
        #[arg(required = true, value_name = "WHO")]
        grantees: Vec<Grantee>,
    },
    /// Open a set for publishing though no peer could confirm its newest head
    ///
    /// Only where nobody can hold more of the set than this node does: after a
    /// restored backup it would otherwise fork the set. A set of another member,
    /// held for review since the store was restored, counts again.
    ConfirmHead {
        /// A set of this member, or MEMBER/SET
        set: SetReference,
        /// Why nobody can hold more; the log and the audit feed keep it
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

/// What a new set is.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The set's name: 1 to 32 of a-z, 0-9 and -; cannot be changed
    #[arg(value_name = "SET")]
    pub name: SetReference,
    /// What it holds, for people; at most 200 bytes [default: the name]
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,
    /// Whose work the entries are: "own" for this member's, else whose list it is
    #[arg(long, value_name = "own|LIST-OWNER")]
    pub source: String,
    /// The list's terms allow sharing it on; without it the set stays on this node
    #[arg(long)]
    pub may_share: bool,
    /// The list's terms in words; at most 1,000 bytes
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub terms: String,
    /// It holds what this member thinks of entries, written by hashpact opine
    #[arg(long)]
    pub opinions: bool,
    /// The scheme that unqualified classifications such as A1 belong to
    #[arg(long, value_name = "SCHEME", default_value = "tc")]
    pub scheme: String,
    /// Who may read it: MEMBER, group:NAME or all; with :relay they may serve it
    /// onward; may be repeated
    #[arg(long = "grant", value_name = "WHO[:relay]")]
    pub grants: Vec<GrantArg>,
}

/// Whom a grant is for, and whether they may serve the set onward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrantArg {
    who: Grantee,
    relay: bool,
}

impl FromStr for GrantArg {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let (who, relay) = match text.strip_suffix(":relay") {
            Some(who) => (who, true),
            None => (text, false),
        };
        let who = who.parse()?;
        Ok(Self { who, relay })
    }
}

impl GrantArg {
    fn message(&self) -> wire::Grantee {
        wire::Grantee {
            who: self.who.to_string(),
            relay: self.relay,
        }
    }
}

/// A set as `--json` prints it.
#[derive(Serialize)]
struct SetObject {
    name: String,
    feed: String,
    title: String,
    own: bool,
    source: String,
    may_share: bool,
    terms: String,
    classification_scheme: String,
    /// entries or opinions.
    holds: &'static str,
    grants: Vec<GrantObject>,
    live_entries: u64,
    size: u64,
    root: String,
    epoch: u32,
    changed: Option<String>,
    open: bool,
    closed_because: String,
}

#[derive(Serialize)]
struct GrantObject {
    who: String,
    relay: bool,
}

#[derive(Serialize)]
struct SetList {
    sets: Vec<SetObject>,
}

/// Runs the command.
///
/// # Errors
/// When the set does not fit, or no store can be reached.
pub fn run(args: SetArgs, context: &Context) -> Result<(), CliError> {
    if let SetCommand::Create(create) = &args.command {
        check(create)?;
    }
    let client = connect_or_embed(context)?;
    let own = &client.config().member.slug;
    let mut node = client.node();
    let set = match args.command {
        SetCommand::Create(create) => {
            let request = create.message(own)?;
            client.call(node.create_set(request))?
        }
        SetCommand::List => return list(&client, context),
        SetCommand::Show { set } => {
            let set = set.to_string();
            client.call(node.show_set(wire::ShowSetRequest { set }))?
        }
        SetCommand::Grant {
            set,
            mut grantees,
            relay,
        } => {
            for grant in &mut grantees {
                grant.relay |= relay;
            }
            let request = wire::ChangeGrantsRequest {
                set: set.own(own)?.to_string(),
                grant: grantees.iter().map(GrantArg::message).collect(),
                revoke: Vec::new(),
            };
            client.call(node.change_grants(request))?
        }
        SetCommand::Revoke { set, grantees } => {
            let request = wire::ChangeGrantsRequest {
                set: set.own(own)?.to_string(),
                grant: Vec::new(),
                revoke: grantees.iter().map(ToString::to_string).collect(),
            };
            client.call(node.change_grants(request))?
        }
        SetCommand::ConfirmHead { set, reason } => {
            let set = set.resolve(own).to_string();
            client.call(node.confirm_head(wire::ConfirmHeadRequest { set, reason }))?
        }
    };
    show(set, context)
}

/// Terms belong to somebody else's list; and a list that may not be shared on is
/// granted to nobody.
fn check(create: &CreateArgs) -> Result<(), CliError> {
    let own = create.source == "own";
    if own && (create.may_share || !create.terms.is_empty()) {
        return Err(
            CliError::usage("--may-share and --terms are for somebody else's list")
                .next("own work may always be shared; leave them out, or give --source LIST-OWNER"),
        );
    }
    if create.source.trim().is_empty() {
        return Err(CliError::usage("--source is empty").next("--source own, or whose list it is"));
    }
    if !own && !create.may_share && !create.grants.is_empty() {
        return Err(CliError::usage(format!(
            "a list of {} without --may-share stays on this node and can be granted to nobody",
            create.source
        ))
        .next("leave --grant out, or give --may-share if the terms allow it"));
    }
    Ok(())
}

impl CreateArgs {
    fn message(self, member: &Slug) -> Result<wire::CreateSetRequest, CliError> {
        let own = self.source == "own";
        let set = self.name.own(member)?.to_string();
        Ok(wire::CreateSetRequest {
            title: self.title.unwrap_or_else(|| set.clone()),
            set,
            list_owner: if own { String::new() } else { self.source },
            may_share: own || self.may_share,
            terms_text: self.terms,
            classification_scheme: self.scheme,
            grants: self.grants.iter().map(GrantArg::message).collect(),
            opinions: self.opinions,
        })
    }
}

fn list(client: &Client, context: &Context) -> Result<(), CliError> {
    let sets = client
        .call(client.node().list_sets(wire::ListSetsRequest {}))?
        .sets;
    if sets.is_empty() {
        context
            .output
            .line("no sets; hashpact set create makes one")?;
    } else {
        let mut shown = table(
            &["SET", "ENTRIES", "LEAVES", "SHARED WITH", "STATE"],
            &[1, 2],
        );
        for set in &sets {
            shown.add_row([
                set.name.clone(),
                count(set.live_entries),
                count(set.size),
                shared_with(set),
                state(set).to_owned(),
            ]);
        }
        context.output.table(&shown)?;
    }
    let sets = sets.into_iter().map(object).collect();
    context.output.json(&SetList { sets })
}

fn show(set: wire::SetInfo, context: &Context) -> Result<(), CliError> {
    let output = &context.output;
    output.line(format_args!("{}  {}", set.name, set.title))?;
    let source = if set.source.is_empty() {
        "own work".to_owned()
    } else {
        format!("a list of {}", set.source)
    };
    output.line(format_args!("  source    {source}"))?;
    if !set.terms.is_empty() {
        output.line(format_args!("  terms     {}", set.terms))?;
    }
    output.line(format_args!("  shared    {}", shared_with(&set)))?;
    let leaves = counted(set.size, "leaf", "leaves");
    if set.opinions {
        output.line(format_args!("  opinions  {leaves}"))?;
    } else {
        let entries = count(set.live_entries);
        output.line(format_args!("  entries   {entries} ({leaves})"))?;
    }
    let root = HEXLOWER.encode(&set.root);
    output.line(format_args!("  head      {} {root}", set.size))?;
    output.line(format_args!(
        "  feed      {}",
        HEXLOWER.encode(&set.feed_id)
    ))?;
    output.line(format_args!("  scheme    {}", set.classification_scheme))?;
    output.line(format_args!("  changed   {}", time(set.created_ms)))?;
    let closed = &set.publishing_closed;
    match state(&set) {
        "closed" => output.line(format_args!("  state     closed: {closed}"))?,
        other => output.line(format_args!("  state     {other}"))?,
    }
    output.json(&object(set))
}

fn shared_with(set: &wire::SetInfo) -> String {
    if !set.may_share {
        return "nobody: its terms keep it local".to_owned();
    }
    let grant = |grantee: &wire::Grantee| {
        let relay = if grantee.relay { ":relay" } else { "" };
        format!("{}{relay}", grantee.who)
    };
    let grants: Vec<String> = set.grants.iter().map(grant).collect();
    if grants.is_empty() {
        "nobody".to_owned()
    } else {
        grants.join(", ")
    }
}

fn state(set: &wire::SetInfo) -> &'static str {
    match (set.own, set.publishing_closed.is_empty()) {
        (false, _) => "read",
        (true, true) => "open",
        (true, false) => "closed",
    }
}

fn object(set: wire::SetInfo) -> SetObject {
    SetObject {
        open: state(&set) == "open",
        name: set.name,
        feed: HEXLOWER.encode(&set.feed_id),
        title: set.title,
        own: set.own,
        source: if set.source.is_empty() {
            "own".to_owned()
        } else {
            set.source
        },
        may_share: set.may_share,
        terms: set.terms,
        classification_scheme: set.classification_scheme,
        holds: if set.opinions { "opinions" } else { "entries" },
        grants: set
            .grants
            .into_iter()
            .map(|grantee| GrantObject {
                who: grantee.who,
                relay: grantee.relay,
            })
            .collect(),
        live_entries: set.live_entries,
        size: set.size,
        root: HEXLOWER.encode(&set.root),
        epoch: set.epoch,
        changed: stamp(set.created_ms),
        closed_because: set.publishing_closed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_may_allow_relaying() {
        let parse = |text: &str| text.parse::<GrantArg>().map(|grant| grant.message());
        let message = |who: &str, relay| wire::Grantee {
            who: who.to_owned(),
            relay,
        };
        assert_eq!(parse("all"), Ok(message("all", false)));
        assert_eq!(parse("tidepool:relay"), Ok(message("tidepool", true)));
        assert_eq!(parse("group:games:relay"), Ok(message("group:games", true)));
        assert!(parse(":relay").is_err());
    }

    #[test]
    fn a_list_without_the_right_to_share_is_granted_to_nobody() {
        let create = |source: &str, may_share, grant: Option<&str>| CreateArgs {
            name: "s".parse().unwrap(),
            title: None,
            source: source.to_owned(),
            may_share,
            terms: String::new(),
            scheme: "tc".to_owned(),
            opinions: false,
            grants: grant
                .into_iter()
                .map(|grant| grant.parse().unwrap())
                .collect(),
        };
        assert!(check(&create("own", false, Some("all"))).is_ok());
        assert!(check(&create("own", true, None)).is_err());
        assert!(check(&create("Hotline", false, None)).is_ok());
        assert!(check(&create("Hotline", true, Some("all"))).is_ok());
        assert!(check(&create("Hotline", false, Some("all"))).is_err());
    }
}
