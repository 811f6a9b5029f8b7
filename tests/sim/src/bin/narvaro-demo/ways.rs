//! After the story: where to look, and what to try.

use crate::{stage::Stage, voice::Voice};

/// Prints lines that can be copied.
pub(crate) fn show(stage: &Stage, voice: &Voice) {
    let sim = stage.sim.base_url();
    let (public, private) = (stage.public, stage.private);
    let folder = stage.folder().display().to_string();
    let narvaro = format!("{} --config {folder}/narvaro.toml", stage.program().display());
    let bearer = format!("-H \"Authorization: Bearer $(cat {folder}/admin.token)\"");
    let event = |alias: &str, event: &str| {
        format!("    curl -d '{event}' {sim}/sim/users/{alias}@acme.example/events")
    };
    let text = format!(
        r#"
It keeps running until Ctrl-C. Everything lies in {folder}.

Put events into the calendars (as a user would in Outlook):
{}
{}
{}
    curl {sim}/sim/users/anna@acme.example/events   # what is there, with ids
    curl -X DELETE {sim}/sim/users/anna@acme.example/events/ID

Look at the telephones, and change one by hand:
    curl {sim}/sim/pbx/acme
    curl -d '{{"profile":"holiday","text":"Semester"}}' {sim}/sim/pbx/acme/extensions/201/manual

Ask the service:
    {narvaro} status
    {narvaro} explain 201 --lang en
    {narvaro} try "Semester v. 30" --company acme
    {narvaro} subscriptions list
    {narvaro} check
    curl {bearer} http://{private}/admin/v1/status
    curl http://{private}/metrics
    curl http://{private}/health/ready
    tail -f {folder}/narvaro.log

Make trouble, and mend it:
    curl -d '{{"fault":{{"kind":"status","status":503}},"times":3}}' {sim}/sim/pbx/acme/faults
    curl -X POST -d '{{"drop":1.0}}' {sim}/sim/delivery   # no notification arrives ...
    curl -X POST -d '{{"drop":0.0}}' {sim}/sim/delivery   # ... and again they do
    {narvaro} sync --all   # what was missed is read
    curl -X DELETE -d '{{"client_id":"{CLIENT_ID}"}}' {sim}/sim/tenants/{TENANT}/consent
    {narvaro} consent-url acme   # consent again: open what it prints

Everything the simulators saw and did, and what they object to:
    curl {sim}/sim/journal
    curl {sim}/sim/violations

Microsoft 365 would call http://{public}/graph/v1/notify."#,
        event("anna", r#"{"subject":"MÖT: budget","in_secs":5,"for_secs":60}"#),
        event("anna", r#"{"subject":"Lunch med Bo","in_secs":0,"for_secs":30}"#),
        event("bo", r#"{"subject":"Resa till Stockholm","in_secs":0,"for_secs":30}"#),
    );
    voice.plain(&text);
}

/// As in `infra/demo/seed.toml`.
const TENANT: &str = "3b1f0c9a-5d7e-4c26-8f14-a2d9e6b07c51";
const CLIENT_ID: &str = "6d2f4b8e-91c7-4a3d-b0e5-5f7c8a1e2d34";
