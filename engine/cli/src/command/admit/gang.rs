//! `placet admit --gang`: requests that are admitted together or not at all.

use placet_core::MAX_GANG;
use placet_proto::admission::v1::{
    AdmitGangRequest, AdmitGangResponse, AdmitRequest, stream_request::Event,
};

use crate::connection::{Client, status_failure};
use crate::events::Source;
use crate::exit::Failure;

/// The members, one from each line of each file.
pub(super) fn members(sources: Vec<Source>) -> Result<Vec<AdmitRequest>, Failure> {
    let mut members = Vec::new();
    for mut source in sources {
        while let Some(line) = source.next()? {
            let place = format!("{}:{}", source.name(), line.number);
            let event = line.event.map_err(|error| {
                let field = Some(error.field).filter(|field| !field.is_empty());
                let field = field.map(|field| format!("{field}: ")).unwrap_or_default();
                Failure::new(format!("{place}: {field}{}", error.message))
            })?;
            if event.time.is_some() {
                return Err(Failure::new(format!("{place}: a member of a gang has no `time`"))
                    .hint("leave it out: all members are decided at one instant"));
            }
            match event.event {
                Some(Event::Admit(member)) => members.push(member),
                Some(Event::Confirm(_) | Event::Release(_)) | None => {
                    return Err(Failure::new(format!("{place}: is no request for a decision"))
                        .hint("confirm and release each member apart"));
                }
            }
            if members.len() > MAX_GANG {
                return Err(Failure::new(format!("a gang has at most {MAX_GANG} members")));
            }
        }
    }
    Ok(members)
}

/// Asks for all of them together.
pub(super) async fn ask(
    mut client: Client,
    gang_id: String,
    members: Vec<AdmitRequest>,
) -> Result<AdmitGangResponse, Failure> {
    let asked = client.admit_gang(AdmitGangRequest { gang_id, members }).await;
    asked.map(tonic::Response::into_inner).map_err(|status| status_failure(&status))
}
