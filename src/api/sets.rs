//! Sets over the local API: made, granted, opened; each recorded in the audit feed.

use tonic::{Request, Response, Status};
use tracing::info;

use crate::error::{misuse, refused};
use crate::recorded::{self, Asked};
use crate::service::NodeService;
use crate::{convert, wire};

pub(crate) async fn create(
    service: &NodeService,
    request: Request<wire::CreateSetRequest>,
) -> Result<Response<wire::SetInfo>, Status> {
    let act = Asked::of(&request).act("set.create");
    let request = request.into_inner();
    let opinions = request.opinions;
    let new = convert::new_set(request).map_err(|error| refused(&error))?;
    let act = act.of_set(format!("{}/{}", service.node().member_slug(), new.set));
    let set = service
        .act("set create", act, move |node, act| {
            let set = if opinions {
                node.create_opinions_set(&new)?
            } else {
                node.create_set(&new)?
            };
            recorded::granted(act, &set.grants);
            Ok(set)
        })
        .await?;
    info!(set = %set.name, grants = set.grants.len(), opinions, "set created");
    Ok(Response::new(convert::set_info(set)))
}

pub(crate) async fn change_grants(
    service: &NodeService,
    request: Request<wire::ChangeGrantsRequest>,
) -> Result<Response<wire::SetInfo>, Status> {
    let asked = Asked::of(&request);
    let request = request.into_inner();
    let (set, name) = service.own_set(&request.set)?;
    let act = asked.act(if request.grant.is_empty() {
        "set.revoke"
    } else {
        "set.grant"
    });
    let set = service
        .act("change of grants", act.of_set(name), move |node, act| {
            let grant: Vec<_> = request.grant.into_iter().map(convert::grantee).collect();
            let set = node.change_grants(&set, &grant, &request.revoke)?;
            recorded::granted(act, &grant);
            for who in &request.revoke {
                act.detail("revoke", who);
            }
            Ok(set)
        })
        .await?;
    info!(set = %set.name, grants = set.grants.len(), "grants changed");
    Ok(Response::new(convert::set_info(set)))
}

pub(crate) async fn confirm_head(
    service: &NodeService,
    request: Request<wire::ConfirmHeadRequest>,
) -> Result<Response<wire::SetInfo>, Status> {
    let asked = Asked::of(&request);
    let request = request.into_inner();
    if request.reason.trim().is_empty() {
        return Err(misuse(
            "say why nobody can hold more of the set: a reason is kept",
        ));
    }
    let set = convert::set_name(&service.node(), &request.set).map_err(|error| refused(&error))?;
    let mut act = asked.act("set.confirm-head").of_set(set.to_string());
    act.said("reason", &request.reason);
    let set = service
        .act("confirm-head", act, move |node, _| {
            if set.member == *node.member_slug() {
                node.confirm_head(&set.set, &request.reason)
            } else {
                node.confirm_held(&set, &request.reason)
            }
        })
        .await?;
    Ok(Response::new(convert::set_info(set)))
}
