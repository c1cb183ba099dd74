//! What the commands of administrators take.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgGroup, Args, Subcommand};
use hashpact_core::id::{CoalitionName, Digest, Slug, UnixMillis};

use super::ROSTER_FILE;
use crate::cli::fingerprint::Fingerprint;
use crate::cli::passphrase::{NewPassphraseArgs, PassphraseArgs};
use crate::cli::values::{RoleArg, slug};

/// The life of a roster where none is given.
pub(super) const DEFAULT_DAYS: u32 = 365;

/// Found a coalition and run its life, as an administrator; works offline, on files
///
/// The roster lies in a folder, as roster.hashpact. Changes make a draft beside it,
/// roster-vN.draft: change, review, sign (each administrator, on the own machine),
/// publish. Several changes may go into one draft, until somebody has signed it.
#[derive(Debug, Args)]
pub struct CoalitionArgs {
    /// What to do
    #[command(subcommand)]
    pub command: CoalitionCommand,
}

/// What an administrator does.
#[derive(Debug, Subcommand)]
pub enum CoalitionCommand {
    /// Found a coalition: make administrators' keys and version 1 of the roster
    Init(FoundArgs),
    /// Make an administrator's key, on the machine of that person
    Key(KeyArgs),
    /// Draft: take newcomers in from their enrolment requests
    Admit(AdmitArgs),
    /// Cut a member off at once, alone, for at most 7 days; --lasting drafts it
    Suspend(SuspendArgs),
    /// Draft: let a suspended or removed member take part again
    Reinstate(MemberArgs),
    /// Draft: remove members; what they said stays attributed to them
    Remove(RemoveArgs),
    /// Draft: change a member's name for people
    Rename(RenameArgs),
    /// Draft: say what a member may do; replaces the roles that it has
    SetRole(SetRoleArgs),
    /// Draft: change the limits of the coalition
    SetLimits(SetLimitsArgs),
    /// Draft: change how many administrators, or witnesses, it takes
    SetThreshold(SetThresholdArgs),
    /// Draft: add an administrator
    AddAdmin(AddAdminArgs),
    /// Draft: take an administrator away
    RemoveAdmin(RemoveAdminArgs),
    /// Draft: give a member its new identity key, from the request it made
    RotateIdentity(RotateIdentityArgs),
    /// Draft: change groups of members
    Group(GroupArgs),
    /// Draft: the same roster for another year, from 45 days before it expires
    Renew(RenewArgs),
    /// Draft: end the epoch of a feed whose key leaked; the next one goes on
    RevokeFeedKey(RevokeFeedKeyArgs),
    /// Show what a draft changes, what it would break, and who has signed
    Review(ReviewArgs),
    /// Sign a draft, as one administrator
    Sign(SignArgs),
    /// Merge the signatures of a draft's copies, check the chain, write the roster
    Publish(PublishArgs),
    /// Admit, sign and publish in one step, where all keys needed are at hand
    Add(AddArgs),
    /// Show who takes part, as the node of --config sees it: no set is named
    ///
    /// For observers: a member with the role observe runs a node and hears of no feed.
    /// Per node: reached or not, when it was heard last, its version and that of the
    /// roster it holds, until when card and certificate go, receipts that are overdue.
    Status(StatusArgs),
    /// Take newer versions, cards and suspensions from other copies of the roster
    Update(UpdateArgs),
    /// Show a roster file: version, administrators, members, expiry, signatures
    Show {
        /// The roster's file
        #[arg(value_name = "FILE", default_value = ROSTER_FILE)]
        roster: PathBuf,
    },
    /// Show every version of a roster file: when, what changed, who signed
    History {
        /// The roster's file
        #[arg(value_name = "FILE", default_value = ROSTER_FILE)]
        roster: PathBuf,
    },
}

/// Where the roster lies.
#[derive(Debug, Clone, Args)]
pub struct FolderArgs {
    /// Folder with the roster, roster.hashpact
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
}

/// Where a draft goes.
#[derive(Debug, Clone, Args)]
pub struct DraftArgs {
    /// The folder.
    #[command(flatten)]
    pub folder: FolderArgs,
    /// The draft's file; one that is there and unsigned is added to
    /// [default: roster-vN.draft in the folder]
    #[arg(long, value_name = "FILE")]
    pub draft: Option<PathBuf>,
    /// Days until the roster expires [default: as before, or 365 where that is less
    /// than 45 days away]
    #[arg(long, alias = "life-days", value_name = "DAYS", value_parser = clap::value_parser!(u32).range(30..=400))]
    pub days: Option<u32>,
}

/// What a new coalition is.
#[derive(Debug, Args)]
pub struct FoundArgs {
    /// The coalition's name, such as csa-coalition.example
    #[arg(long, value_name = "NAME", value_parser = CoalitionName::parse)]
    pub name: CoalitionName,
    /// Take the place of a coalition whose administrators cannot approve any longer:
    /// its roster's file, whose members, groups and revocations stay
    #[arg(long, value_name = "FILE")]
    pub succeeds: Option<PathBuf>,
    /// Folder for the roster and the administrators' keys
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// An administrator, with the key's file or the 64 digits of its public half
    /// where there is one; may be repeated
    ///
    /// Without either the key is made, as NAME.key in the folder. Where only public
    /// halves are given the founding is a draft that those administrators sign.
    #[arg(long = "admin", value_name = "NAME[=KEY]", default_values = ["admin"])]
    pub admins: Vec<AdminArg>,
    /// Administrators that must sign [default: 2, or 1 where there is only one]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=255))]
    pub threshold: Option<u32>,
    /// Days until the roster expires
    #[arg(long, alias = "life-days", value_name = "DAYS", default_value_t = DEFAULT_DAYS, value_parser = clap::value_parser!(u32).range(30..=400))]
    pub days: u32,
    /// The passphrase of new keys.
    #[command(flatten)]
    pub passphrase: NewPassphraseArgs,
}

/// An administrator by name, with its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminArg {
    /// For people.
    pub name: String,
    /// The key, where there is one.
    pub key: Option<AdminKey>,
}

/// A key of an administrator that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminKey {
    /// The file of the secret key.
    File(PathBuf),
    /// The public half.
    Public(Digest),
}

impl FromStr for AdminArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, key) = match text.split_once('=') {
            Some((name, key)) => (name, Some(key)),
            None => (text, None),
        };
        if name.trim().is_empty() {
            return Err("write it as NAME, NAME=KEYFILE or NAME=PUBLICKEY".to_owned());
        }
        let key = key.map(|key| match Digest::from_hex(key) {
            Ok(public) => AdminKey::Public(public),
            Err(_) => AdminKey::File(PathBuf::from(key)),
        });
        Ok(Self {
            name: name.trim().to_owned(),
            key,
        })
    }
}

/// Where a new key goes.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// The key's file; not written over
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Its passphrase.
    #[command(flatten)]
    pub passphrase: NewPassphraseArgs,
}

/// Whom to take in.
#[derive(Debug, Args)]
pub struct AdmitArgs {
    /// The draft.
    #[command(flatten)]
    pub draft: DraftArgs,
    /// Enrolment requests
    #[arg(required = true, value_name = "REQUEST")]
    pub requests: Vec<PathBuf>,
    /// How the fingerprints are compared.
    #[command(flatten)]
    pub compared: ComparedArgs,
}

/// How fingerprints are compared.
#[derive(Debug, Clone, Args)]
pub struct ComparedArgs {
    /// The words that the member read out, or the digits; for one request
    #[arg(long, value_name = "WORDS", conflicts_with = "yes")]
    pub fingerprint: Option<Fingerprint>,
    /// Do not ask whether the fingerprints were read out and match
    #[arg(long)]
    pub yes: bool,
}

/// Which members to add.
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Folder with the roster, roster.hashpact, and the administrators' keys
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Enrolment requests
    #[arg(required = true, value_name = "REQUEST")]
    pub requests: Vec<PathBuf>,
    /// An administrator's key; may be repeated [default: those in the folder]
    #[arg(long = "admin-key", value_name = "FILE")]
    pub admin_keys: Vec<PathBuf>,
    /// Days until the roster expires
    #[arg(long, alias = "life-days", value_name = "DAYS", default_value_t = DEFAULT_DAYS, value_parser = clap::value_parser!(u32).range(30..=400))]
    pub days: u32,
    /// How the fingerprints are compared.
    #[command(flatten)]
    pub compared: ComparedArgs,
    /// The passphrase of the keys.
    #[command(flatten)]
    pub passphrase: PassphraseArgs,
}

/// Whom to suspend.
#[derive(Debug, Args)]
pub struct SuspendArgs {
    /// The draft.
    #[command(flatten)]
    pub draft: DraftArgs,
    /// The member
    #[arg(value_name = "MEMBER", value_parser = slug)]
    pub member: Slug,
    /// Why, for people
    #[arg(long, value_name = "TEXT", required_unless_present_any = ["lasting", "preview"])]
    pub reason: Option<String>,
    /// How many days, at most 7
    #[arg(long = "for-days", value_name = "DAYS", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=7))]
    pub for_days: u32,
    /// The administrator's key [default: the only one in the folder]
    #[arg(long, alias = "admin-key", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// The key's passphrase.
    #[command(flatten)]
    pub passphrase: PassphraseArgs,
    /// Hand it to the node of --config at once, which tells the others
    #[arg(long, conflicts_with = "lasting")]
    pub to_node: bool,
    /// Draft it instead: until the administrators decide otherwise
    #[arg(long)]
    pub lasting: bool,
    /// Only show what hangs on it at the node of --config; cuts nobody off
    #[arg(long)]
    pub preview: bool,
}

/// How to show the coalition.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Show it again every so many seconds, until stopped
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub watch: Option<u64>,
}

/// Whom to remove.
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The draft.
    #[command(flatten)]
    pub draft: DraftArgs,
    /// The members
    #[arg(required = true, value_name = "MEMBER", value_parser = slug)]
    pub members: Vec<Slug>,
    /// Only show what hangs on them at the node of --config; drafts nothing
    #[arg(long)]
    pub preview: bool,
}

/// Members of the roster.
#[derive(Debug, Args)]
pub struct MemberArgs {
    /// The draft.
    #[command(flatten)]
    pub draft: DraftArgs,
    /// The members
    #[arg(required = true, value_name = "MEMBER", value_parser = slug)]
    pub members: Vec<Slug>,
}

/// What a member is called.
#[derive(Debug, Args)]
#[command(override_usage = "\
hashpact coalition rename [OPTIONS] <MEMBER>
           <--display-name <TEXT>|--organisation <TEXT>>")]
#[command(group(ArgGroup::new("what").required(true).multiple(true).args(["display_name", "organisation"])))]
pub struct RenameArgs {
    /// The draft.
    #[command(flatten)]
    pub draft: DraftArgs,
    /// The member; its slug never changes
    #[arg(value_name = "MEMBER", value_parser = slug)]
    pub member: Slug,
    /// Its name for people
    #[arg(long, value_name = "TEXT")]
    pub display_name: Option<String>,
    /// The kind of organisation, such as platform, hotline or vendor
    #[arg(long, value_name = "TEXT")]
    pub organisation: Option<String>,
}

/// What a member may do.
#[derive(Debug, Args)]
pub struct SetRoleArgs {
    /// The draft.
    #[command(flatten)]
    pub draft: DraftArgs,
    /// The member
    #[arg(value_name = "MEMBER", value_parser = slug)]
    pub member: Slug,
    /// All roles that it is to have
    #[arg(required = true, value_name = "ROLE")]
    pub roles: Vec<RoleArg>,
}

/// The coalition's limits.
#[derive(Debug, Args)]
pub struct SetLimitsArgs {
    /// The draft.
    #[command(flatten)]
    pub draft: DraftArgs,
    /// Publish leaves that a feed may grow by in an hour; 0 for the default
    #[arg(long, value_name = "LEAVES")]
    pub feed_growth_per_hour: u64,
}

/// How many it takes.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).multiple(true).args(["threshold", "witnesses"])))]
pub struct SetThresholdArgs {
    /// The draft.
    #[command(flatten)]
    pub draft: DraftArgs,
    /// Administrators that must sign
    #[arg(value_name = "K", value_parser = clap::value_parser!(u32).range(1..=255))]
    pub threshold: Option<u32>,
    /// Witnesses whose cosignatures are a quorum
    #[arg(long, value_name = "W")]
    pub witnesses: Option<u32>,
}

/// A new administrator.
#[derive(Debug, Args)]
pub struct AddAdminArgs {
    /// The draft.
    #[command(flatten)]
    pub draft: DraftArgs,
    /// Name and public key, as `hashpact coalition key` printed it, or the key's file
    #[arg(value_name = "NAME=KEY")]
    pub admin: AdminArg,
    /// Administrators that must sign from then on
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=255))]
    pub threshold: Option<u32>,
    /// The key's passphrase, where its file is given.
    #[command(flatten)]
    pub passphrase: PassphraseArgs,
}

/// An administrator to take away.
#[derive(Debug, Args)]
pub struct RemoveAdminArgs {
    /// The draft.
    #[command(flatten)]
    pub draft: DraftArgs,
    /// Its name, or its public key
    #[arg(value_name = "NAME|KEY")]
    pub admin: String,
    /// Administrators that must sign from then on
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=255))]
    pub threshold: Option<u32>,
}

/// A member's new identity key.
#[derive(Debug, Args)]
pub struct RotateIdentityArgs {
    /// The draft.
    #[command(flatten)]
    pub draft: DraftArgs,
    /// The request that `hashpact enrol rotate-identity` made
    #[arg(value_name = "REQUEST")]
    pub request: PathBuf,
    /// The old key is lost, and has not signed the request
    #[arg(long)]
    pub lost: bool,
    /// How the fingerprint is compared.
    #[command(flatten)]
    pub compared: ComparedArgs,
}

/// What to do with groups.
#[derive(Debug, Args)]
pub struct GroupArgs {
    /// What to do
    #[command(subcommand)]
    pub command: GroupCommand,
}

/// What to do with groups.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// Draft: put members into a group; makes the group where there is none
    Add(GroupChangeArgs),
    /// Draft: take members out of a group; without members, take the group away
    Remove(GroupChangeArgs),
}

/// A group and members.
#[derive(Debug, Args)]
pub struct GroupChangeArgs {
    /// The draft.
    #[command(flatten)]
    pub draft: DraftArgs,
    /// The group
    #[arg(value_name = "GROUP", value_parser = slug)]
    pub group: Slug,
    /// The members
    #[arg(value_name = "MEMBER", value_parser = slug)]
    pub members: Vec<Slug>,
}

/// When to renew.
#[derive(Debug, Args)]
pub struct RenewArgs {
    /// The draft.
    #[command(flatten)]
    pub draft: DraftArgs,
    /// The day that it is issued on, within the last 45 days of the roster in force:
    /// it can be signed earlier, and nodes take it from then on [default: today, or
    /// the first of those days]
    #[arg(long, value_name = "YYYY-MM-DD", value_parser = date)]
    pub issue_on: Option<UnixMillis>,
}

fn date(text: &str) -> Result<UnixMillis, String> {
    let wrong = || "write it as YYYY-MM-DD".to_owned();
    let date: jiff::civil::Date = text.parse().map_err(|_| wrong())?;
    let zoned = date
        .to_zoned(jiff::tz::TimeZone::UTC)
        .map_err(|_| wrong())?;
    let millis = u64::try_from(zoned.timestamp().as_millisecond());
    millis.map(UnixMillis).map_err(|_| wrong())
}

/// The feed key that leaked, and what still holds.
#[derive(Debug, Args)]
#[command(override_usage = "\
hashpact coalition revoke-feed-key [OPTIONS] --feed <FEED> --key <KEY>
                                        --size <LEAVES> --root <ROOT>")]
pub struct RevokeFeedKeyArgs {
    /// The draft.
    #[command(flatten)]
    pub draft: DraftArgs,
    /// The feed's id, 64 hexadecimal digits; hashpact set show prints it
    #[arg(long, value_name = "FEED", value_parser = Digest::from_hex)]
    pub feed: Digest,
    /// The public key that leaked, 64 hexadecimal digits
    #[arg(long, value_name = "KEY", value_parser = Digest::from_hex)]
    pub key: Digest,
    /// The last size that the member itself signed: leaves from there on are void
    #[arg(long, value_name = "LEAVES")]
    pub size: u64,
    /// The root at that size, 64 hexadecimal digits
    #[arg(long, value_name = "ROOT", value_parser = Digest::from_hex)]
    pub root: Digest,
}

/// What to look at.
#[derive(Debug, Args)]
pub struct ReviewArgs {
    /// The folder.
    #[command(flatten)]
    pub folder: FolderArgs,
    /// The draft [default: roster-vN.draft in the folder]
    #[arg(value_name = "DRAFT")]
    pub draft: Option<PathBuf>,
}

/// What to sign, and as whom.
#[derive(Debug, Args)]
pub struct SignArgs {
    /// The folder.
    #[command(flatten)]
    pub folder: FolderArgs,
    /// The draft; the signature is added to this file [default: roster-vN.draft in
    /// the folder]
    #[arg(value_name = "DRAFT")]
    pub draft: Option<PathBuf>,
    /// The administrator's key
    #[arg(long, alias = "admin-key", value_name = "FILE")]
    pub key: PathBuf,
    /// The key's passphrase.
    #[command(flatten)]
    pub passphrase: PassphraseArgs,
    /// Do not ask whether the changes are those that were agreed
    #[arg(long)]
    pub yes: bool,
    /// Sign though this key has signed another draft of this version; of the two only
    /// one may ever be published
    #[arg(long)]
    pub instead: bool,
}

/// What to publish.
#[derive(Debug, Args)]
pub struct PublishArgs {
    /// The folder.
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Copies of the draft, each with its signatures [default: roster-vN.draft in the
    /// folder]
    #[arg(value_name = "DRAFT")]
    pub drafts: Vec<PathBuf>,
    /// Hand the roster to the node of --config as well, which serves it on
    #[arg(long)]
    pub to_node: bool,
}

/// Other copies of the roster.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// The folder.
    #[command(flatten)]
    pub folder: FolderArgs,
    /// Roster files: of other administrators, or with cards that members made
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}
