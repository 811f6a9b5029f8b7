pub(super) struct Script { pub(super) source: String, pub(super) name: &'static str, pub(super) sha: String }
impl Script { pub(super) fn new(name: &'static str, parts: &[&str]) -> Self { let source = parts.concat(); let sha = redis::Script::new(&source).get_hash().to_owned(); Self { source, name, sha } } }
