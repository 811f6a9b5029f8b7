//! The service behind the proxy that `infra/nginx` shows: a real nginx, with the shipped file.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

use tempfile::TempDir;

use crate::world::{LIMIT, World};

const NAME: &str = "presence.example.org";
const SHIPPED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/infra/nginx/narvaro.conf");

/// nginx with the shipped file, in front of a public listener. Dropped, it is ended.
struct Nginx {
    child: Child,
    address: SocketAddr,
    certificate: String,
    _folder: TempDir,
}

impl Nginx {
    fn start(public: SocketAddr) -> Self {
        let folder = tempfile::Builder::new().prefix("narvaro-nginx-").tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        fs::write(at("cert.pem"), cert.pem()).unwrap();
        fs::write(at("key.pem"), signing_key.serialize_pem()).unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let certificates = format!("/etc/letsencrypt/live/{NAME}");
        // Only places are changed; each of them must be there.
        let shipped = [
            ("listen 443 ssl", format!("listen {address} ssl")),
            ("listen [::]:443 ssl;", String::new()),
            ("127.0.0.1:8080", public.to_string()),
            (&format!("{certificates}/fullchain.pem"), at("cert.pem")),
            (&format!("{certificates}/privkey.pem"), at("key.pem")),
            ("/var/log/nginx/narvaro.log", at("access.log")),
        ]
        .iter()
        .fold(fs::read_to_string(SHIPPED).unwrap(), |text, (shipped, here)| {
            assert!(text.contains(shipped), "`{shipped}` is not in the shipped file any more");
            text.replace(shipped, here)
        });
        fs::write(at("narvaro.conf"), shipped).unwrap();
        fs::write(at("nginx.conf"), surroundings(folder.path())).unwrap();
        let tried = nginx(&at("nginx.conf")).arg("-t").output();
        let tried = tried.unwrap_or_else(|error| {
            panic!("nginx cannot be started ({error}): run `apt-get install nginx-light`")
        });
        assert!(tried.status.success(), "{}", String::from_utf8_lossy(&tried.stderr));
        let child = nginx(&at("nginx.conf")).stderr(Stdio::null()).spawn().unwrap();
        Self { child, address, certificate: cert.pem(), _folder: folder }
    }

    /// A client that trusts its certificate and finds it under its name.
    fn client(&self) -> reqwest::Client {
        let certificate = reqwest::Certificate::from_pem(self.certificate.as_bytes()).unwrap();
        reqwest::Client::builder()
            .no_proxy()
            .resolve(NAME, self.address)
            .tls_certs_only([certificate])
            .build()
            .unwrap()
    }

    fn url(&self, path: &str) -> String {
        format!("https://{NAME}:{}{path}", self.address.port())
    }

    async fn until_up(&self) {
        let end = Instant::now() + LIMIT;
        while tokio::net::TcpStream::connect(self.address).await.is_err() {
            assert!(Instant::now() < end, "nginx does not listen");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One process in the foreground, so that ending it ends all.
fn surroundings(folder: &Path) -> String {
    let folder = folder.display();
    let places = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {folder}/{what};"))
        .join("\n");
    format!(
        "daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n\
         events {{}}\nhttp {{\naccess_log off;\n{places}\ninclude {folder}/narvaro.conf;\n}}\n"
    )
}

fn nginx(config: &str) -> Command {
    let usual = PathBuf::from("/usr/sbin/nginx");
    let mut command = Command::new(if usual.exists() { usual } else { "nginx".into() });
    command.args(["-e", "stderr", "-c", config]).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

#[tokio::test]
async fn the_shipped_proxy_passes_what_microsoft_sends_and_nothing_else() {
    let world = World::bare().await;
    let nginx = Nginx::start(world.app().public());
    nginx.until_up().await;
    let client = nginx.client();

    for path in ["/graph/v1/notify", "/graph/v1/lifecycle"] {
        let url = nginx.url(&format!("{path}?validationToken=Validation%3A%20%C3%A5%20%26%2B"));
        let answer = client.post(url).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
        assert_eq!(answer.text().await.unwrap(), "Validation: å &+");
    }
    let empty = client.post(nginx.url("/graph/v1/notify")).json(&serde_json::json!({ "value": [] }));
    assert_eq!(empty.send().await.unwrap().status(), 202);
    let forged = client.get(nginx.url("/consent/callback?tenant=x&state=y")).send().await.unwrap();
    assert_eq!(forged.status(), 400);

    for path in ["/", "/admin/v1/status", "/metrics", "/health/ready", "/graph/v1/notify/x", "/graph"] {
        assert_eq!(client.get(nginx.url(path)).send().await.unwrap().status(), 404, "{path}");
    }
    let large = client.post(nginx.url("/graph/v1/notify")).body(vec![b' '; (8 << 20) + 1]);
    assert_eq!(large.send().await.unwrap().status(), 413);
    world.end().await;
}
