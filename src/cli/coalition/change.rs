//! What changes a draft: one function a command.

use hashpact_core::enrol::VerifiedRequest;
use hashpact_core::id::{Digest, FeedId, MemberNumber, Slug, UnixMillis};
use hashpact_core::keys::{Admin, PublicKey, SecretKey};
use hashpact_core::limits::DAY_MS;
use hashpact_core::reject::Rejection;
use hashpact_core::roster::{MemberStatus, Role, RosterAdmin};
use hashpact_core::suspension::AcceptedSuspension;
use hashpact_node::clock::Clock;

use super::args::{
    AddAdminArgs, AdminKey, AdmitArgs, DEFAULT_DAYS, DraftArgs, GroupArgs, GroupCommand,
    MemberArgs, RemoveAdminArgs, RemoveArgs, RenameArgs, RenewArgs, RevokeFeedKeyArgs,
    RotateIdentityArgs, SetLimitsArgs, SetRoleArgs, SetThresholdArgs, SuspendArgs,
};
use super::draft::{RENEW_WINDOW_MS, Sheet};
use super::state::day;
use super::{newcomer, review};
use crate::cli::Context;
use crate::cli::error::CliError;

pub(super) fn admit(args: &AdmitArgs, context: &Context) -> Result<(), CliError> {
    change(&args.draft, context, |sheet| {
        let mut requests = Vec::new();
        for path in &args.requests {
            let state = &sheet.state;
            let fits =
                |request: &VerifiedRequest| request.check_against(&state.chain, &state.cards);
            let (request, ()) = newcomer::read(path, sheet.now, fits)?;
            newcomer::show(context, &request)?;
            requests.push(request);
        }
        newcomer::compare(&requests, &args.compared)?;
        requests
            .into_iter()
            .try_for_each(|request| take_in(sheet, request))
    })
}

/// Puts a newcomer, or a member that comes back, into the draft.
pub(super) fn take_in(sheet: &mut Sheet, request: VerifiedRequest) -> Result<(), CliError> {
    let slug = &request.request().slug;
    let before = sheet.state.chain.roster().member_by_slug(slug);
    if let Some(number) = before.map(|member| member.number) {
        let status = sheet.roster.set_status(number, MemberStatus::Active);
        status.map_err(refused)?;
    } else {
        sheet.roster.admit(request.new_member()).map_err(refused)?;
    }
    sheet.requests.push(request);
    Ok(())
}

pub(super) fn suspend(args: &SuspendArgs, context: &Context) -> Result<(), CliError> {
    change(&args.draft, context, |sheet| {
        set_status(sheet, &args.member, MemberStatus::Suspended)
    })
}

pub(super) fn remove(args: &RemoveArgs, context: &Context) -> Result<(), CliError> {
    change(&args.draft, context, |sheet| {
        let removed = |member| set_status(sheet, member, MemberStatus::Removed);
        args.members.iter().try_for_each(removed)
    })
}

/// Makes members active again, and ends the suspensions in force by name.
pub(super) fn reinstate(args: &MemberArgs, context: &Context) -> Result<(), CliError> {
    change(&args.draft, context, |sheet| {
        for member in &args.members {
            let number = number(sheet, member)?;
            let state = &sheet.state;
            let in_force = state.suspensions.in_force(&state.chain, sheet.now);
            let lifted: Vec<Digest> = in_force
                .filter(|held| held.suspension().member == number)
                .map(AcceptedSuspension::digest)
                .collect();
            let active = state.chain.roster().member(number);
            if lifted.is_empty() && active.is_some_and(|m| m.status == MemberStatus::Active) {
                return Err(CliError::failed(format!("{member} is not cut off"))
                    .next("a suspension that nodes know is taken with hashpact coalition update"));
            }
            sheet.roster.lifted_suspensions.extend(lifted);
            let status = sheet.roster.set_status(number, MemberStatus::Active);
            status.map_err(refused)?;
        }
        Ok(())
    })
}

fn set_status(sheet: &mut Sheet, member: &Slug, status: MemberStatus) -> Result<(), CliError> {
    let number = number(sheet, member)?;
    if sheet
        .roster
        .member(number)
        .is_some_and(|m| m.status == status)
    {
        return Err(CliError::failed(format!("{member} is {status} already")));
    }
    sheet.roster.set_status(number, status).map_err(refused)
}

pub(super) fn rename(args: RenameArgs, context: &Context) -> Result<(), CliError> {
    change(&args.draft, context, |sheet| {
        let number = number(sheet, &args.member)?;
        let (name, kind) = (args.display_name, args.organisation);
        let changed = sheet.roster.change_member(number, |member| {
            member.display_name = name.unwrap_or_else(|| member.display_name.clone());
            member.organisation_kind = kind.unwrap_or_else(|| member.organisation_kind.clone());
        });
        changed.map_err(refused)
    })
}

pub(super) fn set_role(args: &SetRoleArgs, context: &Context) -> Result<(), CliError> {
    change(&args.draft, context, |sheet| {
        let number = number(sheet, &args.member)?;
        let roles: Vec<Role> = args.roles.iter().map(|role| role.role()).collect();
        let changed = sheet
            .roster
            .change_member(number, |member| member.roles = roles);
        changed.map_err(refused)
    })
}

pub(super) fn set_limits(args: &SetLimitsArgs, context: &Context) -> Result<(), CliError> {
    change(&args.draft, context, |sheet| {
        let growth = args.feed_growth_per_hour;
        sheet.roster.feed_growth_per_hour = (growth > 0).then_some(growth);
        Ok(())
    })
}

pub(super) fn set_threshold(args: &SetThresholdArgs, context: &Context) -> Result<(), CliError> {
    change(&args.draft, context, |sheet| {
        set_k(sheet, args.threshold);
        if let Some(witnesses) = args.witnesses {
            sheet.roster.witness_threshold = witnesses;
        }
        Ok(())
    })
}

fn set_k(sheet: &mut Sheet, threshold: Option<u32>) {
    if let Some(threshold) = threshold.and_then(|k| usize::try_from(k).ok()) {
        sheet.roster.threshold = threshold;
    }
}

pub(super) fn add_admin(args: &AddAdminArgs, context: &Context) -> Result<(), CliError> {
    change(&args.draft, context, |sheet| {
        let key = match &args.admin.key {
            Some(AdminKey::Public(digest)) => public(digest)?,
            Some(AdminKey::File(path)) => {
                let key: SecretKey<Admin> = args.passphrase.load(path)?;
                key.public()
            }
            None => {
                return Err(CliError::usage("the key is missing")
                    .next("that person runs hashpact coalition key FILE; then NAME=PUBLICKEY"));
            }
        };
        let name = args.admin.name.clone();
        if sheet.roster.admins.iter().any(|admin| admin.name == name) {
            return Err(CliError::failed(format!(
                "there is an administrator {name}"
            )));
        }
        sheet.roster.add_admin(RosterAdmin { name, key });
        set_k(sheet, args.threshold);
        Ok(())
    })
}

pub(super) fn remove_admin(args: &RemoveAdminArgs, context: &Context) -> Result<(), CliError> {
    change(&args.draft, context, |sheet| {
        let admins = &sheet.roster.admins;
        let is_meant =
            |admin: &&RosterAdmin| admin.name == args.admin || admin.key.to_string() == args.admin;
        let found: Vec<_> = admins
            .iter()
            .filter(is_meant)
            .map(|admin| admin.key)
            .collect();
        let [key] = found.as_slice() else {
            let what = &args.admin;
            return Err(CliError::failed(format!(
                "{} administrators are called {what}",
                found.len()
            ))
            .next("hashpact coalition show lists them; give the public key"));
        };
        sheet.roster.remove_admin(key).map_err(refused)?;
        set_k(sheet, args.threshold);
        Ok(())
    })
}

pub(super) fn rotate_identity(
    args: &RotateIdentityArgs,
    context: &Context,
) -> Result<(), CliError> {
    change(&args.draft, context, |sheet| {
        let state = &sheet.state;
        let fits = |request: &VerifiedRequest| request.check_rotation(&state.chain, &state.cards);
        let (request, by_old_key) = newcomer::read(&args.request, sheet.now, fits)?;
        newcomer::show(context, &request)?;
        let slug = &request.request().slug;
        if by_old_key {
            context
                .output
                .line("  the identity key in force has signed it")?;
        } else if args.lost {
            context
                .output
                .line("  the identity key in force has NOT signed it: it is lost")?;
        } else {
            return Err(CliError::failed(format!(
                "the identity key in force of {slug} has not signed the request"
            ))
            .next(
                "hashpact enrol rotate-identity signs with both; where the old key is lost, \
                 add --lost",
            ));
        }
        newcomer::compare(std::slice::from_ref(&request), &args.compared)?;
        let number = number(sheet, slug)?;
        let rotated = sheet
            .roster
            .rotate_identity(number, request.request().identity);
        rotated.map_err(refused)?;
        sheet.requests.push(request);
        Ok(())
    })
}

pub(super) fn group(args: &GroupArgs, context: &Context) -> Result<(), CliError> {
    let (GroupCommand::Add(group) | GroupCommand::Remove(group)) = &args.command;
    change(&group.draft, context, |sheet| {
        let members = group.members.iter().map(|member| number(sheet, member));
        let members: Vec<MemberNumber> = members.collect::<Result<_, _>>()?;
        match &args.command {
            GroupCommand::Add(_) => {
                sheet.roster.group_add(&group.group, &members);
                Ok(())
            }
            GroupCommand::Remove(_) => {
                let removed = sheet.roster.group_remove(&group.group, &members);
                removed.map_err(refused)
            }
        }
    })
}

/// Renews the roster as it is. Signed earlier than 45 days before the expiry it is
/// post-dated: nodes take it from its day of issue on.
pub(super) fn renew(args: &RenewArgs, context: &Context) -> Result<(), CliError> {
    change(&args.draft, context, |sheet| {
        let expires = sheet.state.chain.roster().expires;
        let first = UnixMillis(expires.0.saturating_sub(RENEW_WINDOW_MS));
        let issue_on = args.issue_on.unwrap_or(sheet.now.max(first));
        // Once it has expired only today is left.
        let within = (first..=expires.max(sheet.now)).contains(&issue_on);
        if !within {
            return Err(CliError::usage(format!(
                "a roster is renewed within its last 45 days, from {} to {}",
                day(first),
                day(expires)
            ))
            .next("leave --issue-on out: then it is the first of those days, or today"));
        }
        let days = args.draft.days.unwrap_or(DEFAULT_DAYS);
        sheet.roster.issued = issue_on;
        sheet.roster.expires = issue_on.plus(u64::from(days) * DAY_MS);
        Ok(())
    })
}

pub(super) fn revoke_feed_key(args: &RevokeFeedKeyArgs, context: &Context) -> Result<(), CliError> {
    change(&args.draft, context, |sheet| {
        let feed = FeedId(args.feed);
        let key = public(&args.key)?;
        sheet
            .roster
            .revoke_feed_key(feed, key, args.size, args.root);
        Ok(())
    })
}

/// Opens the draft, changes it, writes it, and shows what it is.
fn change(
    args: &DraftArgs,
    context: &Context,
    how: impl FnOnce(&mut Sheet) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let mut sheet = Sheet::open(args, Clock::system().now())?;
    how(&mut sheet)?;
    let now = sheet.now;
    let (state, draft, path) = sheet.close()?;
    review::print(context, Some(&state), &draft, &path, now)
}

fn number(sheet: &Sheet, member: &Slug) -> Result<MemberNumber, CliError> {
    let found = sheet.roster.member_by_slug(member);
    match found {
        Some(member) => Ok(member.number),
        None => sheet.state.member(member).map(|member| member.number),
    }
}

fn public<P: hashpact_core::keys::Purpose>(digits: &Digest) -> Result<PublicKey<P>, CliError> {
    PublicKey::from_slice(digits.as_bytes())
        .map_err(|error| CliError::usage(format!("{digits}: {error}")))
}

pub(super) fn refused(rejection: Rejection) -> CliError {
    CliError::failed(format!("refused: {rejection}"))
}
