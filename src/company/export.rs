//! An applied company written as the file that it could have come from.

use super::Company;

/// The company's file. What it says parses to the same company; comments of the file that was applied are not kept.
///
/// Secrets stay the references they were declared as; a PBX secret that was written into the file itself is
/// written again, since the file would not be the same without it.
pub fn export(company: &Company) -> String {
    let (id, revision) = (company.id(), company.revision());
    let head = format!("# Company `{id}` as applied, revision {revision}.\n\n");
    match toml::to_string_pretty(company.file()) {
        Ok(text) => head + &text,
        // The form has no map whose keys are no texts and no value that TOML lacks.
        Err(error) => format!("{head}# cannot be written: {error}\n"),
    }
}
