use std::sync::Arc; use tokio::sync::Notify; use super::script::Script;
#[derive(Debug, Clone)] pub struct LinkSettings { pub url: String }
#[derive(Debug, thiserror::Error)] #[error("x")] pub struct OpenError(#[from] redis::RedisError);
#[derive(Debug, thiserror::Error)] #[error("link")] pub struct LinkError(#[from] redis::RedisError);
#[derive(Clone)] pub struct Link { client: redis::Client, c: redis::aio::ConnectionManager }
pub struct Listener { n: Arc<Notify> }
impl Link {
  pub async fn open(s: &LinkSettings) -> Result<Self, OpenError> { let client = redis::Client::open(s.url.as_str())?; let c = client.get_connection_manager().await?; Ok(Self{client, c}) }
  pub async fn run(&self, s: &Script, key: &str, args: Vec<Vec<u8>>) -> Result<redis::Value, LinkError> {
    let mut c = self.c.clone();
    let mut cmd = redis::cmd("EVALSHA"); cmd.arg(&s.sha).arg(1).arg(key); for a in &args { cmd.arg(a.as_slice()); }
    match cmd.query_async(&mut c).await { Ok(v) => Ok(v), Err(e) if e.code() == Some("NOSCRIPT") => {
      let mut cmd = redis::cmd("EVAL"); cmd.arg(&s.source).arg(1).arg(key); for a in &args { cmd.arg(a.as_slice()); } Ok(cmd.query_async(&mut c).await?) } Err(e) => { eprintln!("{}: {e}", s.name); Err(e.into()) } }
  }
  pub fn listen(&self, channel: String) -> Listener { let n = Arc::new(Notify::new()); let tx = Arc::clone(&n); let client = self.client.clone();
    tokio::spawn(async move { use futures_util::StreamExt; loop { if let Ok(mut p) = client.get_async_pubsub().await { if p.subscribe(&channel).await.is_ok() { tx.notify_one(); let mut m = p.on_message(); while m.next().await.is_some() { tx.notify_one(); } } } } });
    Listener { n } }
}
impl Listener { pub async fn heard(&self) { self.n.notified().await } }
