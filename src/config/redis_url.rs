//! The address of a Redis: one server, a master by its sentinels, or a Cluster.

use std::fmt;

use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};

use crate::store::redis::{Address, Form};

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// The address of a Redis. Its password is never printed.
#[derive(Clone)]
pub struct RedisUrl {
    /// Where the servers are, and how they stand together.
    pub form: Form,
    /// Whether the way to them is TLS.
    pub tls: bool,
    /// The database.
    pub database: u32,
    /// The ACL user.
    pub username: Option<String>,
    password: Option<SecretString>,
}

impl RedisUrl {
    /// The password, where it stands in the address.
    pub fn password(&self) -> Option<&SecretString> {
        self.password.as_ref()
    }

    /// Whether both are the same servers and the same database, and no other user is named.
    pub fn is_at_the_place_of(&self, other: &Self) -> bool {
        (&self.form, self.tls, self.database) == (&other.form, other.tls, other.database)
            && other.password.is_none()
            && (other.username.is_none() || other.username == self.username)
    }

    /// Reads an address; the error says what is wrong with it and how it should be, without any password.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("`{}` is no address: {FORMS}", shown(text)));
        };
        let (tls, kind) = match scheme.split_once('+').map_or((scheme, None), |(way, kind)| (way, Some(kind)))
        {
            ("redis", kind) => (false, kind),
            ("rediss", kind) => (true, kind),
            _ => return Err(format!("`{}` is no store: {FORMS}", shown(text))),
        };
        if rest.contains(['?', '#']) {
            return Err(format!(
                "`{}` has more than host, port and path: remove `?...` and `#...`; write `%3F` and `%23` in a password",
                shown(text)
            ));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) =
            authority.rsplit_once('@').map_or((None, authority), |(user, hosts)| (Some(user), hosts));
        let (username, password) = user.map(login).transpose()?.unwrap_or_default();
        let read = match kind {
            None => single(hosts, path),
            Some("sentinel") => sentinel(hosts, path),
            Some("cluster") => cluster(hosts, path),
            Some(_) => Err(FORMS.to_owned()),
        };
        let (form, database) = read.map_err(|wanted| format!("`{}` is no address: {wanted}", shown(text)))?;
        Ok(Self { form, tls, database, username, password })
    }
}

const FORMS: &str = "write `redis://HOST:PORT` (`rediss` with TLS), `redis+sentinel://HOST:PORT,HOST:PORT/MASTER` or `redis+cluster://HOST:PORT,HOST:PORT`";

fn single(hosts: &str, path: &str) -> Result<(Form, u32), String> {
    let address = Address::parse(hosts, PORT)
        .ok_or_else(|| "write one host and its port, as `redis://127.0.0.1:6379`".to_owned())?;
    Ok((Form::Single(address), database(path)?))
}

fn sentinel(hosts: &str, path: &str) -> Result<(Form, u32), String> {
    let wanted = "write the sentinels and the name they have for the master, as `redis+sentinel://HOST:26379,HOST:26379/mymaster`";
    let (master, number) = path.split_once('/').unwrap_or((path, ""));
    let master = decoded(master).filter(|master| !master.is_empty()).ok_or_else(|| wanted.to_owned())?;
    let sentinels = addresses(hosts, SENTINEL_PORT).ok_or_else(|| wanted.to_owned())?;
    Ok((Form::Sentinel { sentinels, master }, database(number)?))
}

fn cluster(hosts: &str, path: &str) -> Result<(Form, u32), String> {
    let nodes = addresses(hosts, PORT)
        .ok_or_else(|| "write some of the nodes, as `redis+cluster://HOST:6379,HOST:6379`".to_owned())?;
    match database(path)? {
        0 => Ok((Form::Cluster(nodes), 0)),
        _ => Err("remove the database: a Cluster has only 0".to_owned()),
    }
}

fn addresses(hosts: &str, usual_port: u16) -> Option<Vec<Address>> {
    hosts.split(',').map(|host| Address::parse(host.trim(), usual_port)).collect()
}

fn database(path: &str) -> Result<u32, String> {
    if path.is_empty() {
        return Ok(0);
    }
    path.parse().map_err(|_| "after the last `/` stands the number of a database, as `/0`".to_owned())
}

fn login(user: &str) -> Result<(Option<String>, Option<SecretString>), String> {
    let (name, password) =
        user.split_once(':').map_or((user, None), |(name, password)| (name, Some(password)));
    let read = |text: &str| {
        decoded(text).ok_or_else(|| "user or password is not UTF-8: correct what begins with `%`".to_owned())
    };
    let name = Some(read(name)?).filter(|name| !name.is_empty());
    let password = password.map(read).transpose()?.filter(|password| !password.is_empty());
    Ok((name, password.map(SecretString::from)))
}

fn decoded(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(Into::into)
}

/// The text without what may be a password, also where it stands in the wrong place.
fn shown(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, after))) => format!("{scheme}://…@{after}"),
        (None, Some((_, after))) => format!("…@{after}"),
        _ => text.to_owned(),
    }
}

impl PartialEq for RedisUrl {
    fn eq(&self, other: &Self) -> bool {
        let secret = |url: &Self| url.password.as_ref().map(|secret| secret.expose_secret().to_owned());
        (&self.form, self.tls, self.database, &self.username)
            == (&other.form, other.tls, other.database, &other.username)
            && secret(self) == secret(other)
    }
}

impl Eq for RedisUrl {}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "rediss" } else { "redis" })?;
        f.write_str(match self.form {
            Form::Single(_) => "://",
            Form::Sentinel { .. } => "+sentinel://",
            Form::Cluster(_) => "+cluster://",
        })?;
        if self.username.is_some() || self.password.is_some() {
            write!(
                f,
                "{}{}@",
                self.username.as_deref().unwrap_or(""),
                if self.password.is_some() { ":…" } else { "" }
            )?;
        }
        match &self.form {
            Form::Single(address) => write!(f, "{address}")?,
            Form::Sentinel { sentinels, master } => write!(f, "{}/{master}", list(sentinels))?,
            Form::Cluster(nodes) => f.write_str(&list(nodes))?,
        }
        if self.database == 0 { Ok(()) } else { write!(f, "/{}", self.database) }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

fn list(addresses: &[Address]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> RedisUrl {
        RedisUrl::parse(text).unwrap()
    }

    #[test]
    fn every_form_is_read_and_shown_without_its_password() {
        for (text, expected) in [
            ("redis://h", "redis://h:6379"),
            ("redis://h:7/2", "redis://h:7/2"),
            ("rediss://anna:s3%2Fcr@h", "rediss://anna:…@h:6379"),
            ("redis://:s3cr@[::1]:7", "redis://:…@[::1]:7"),
            ("redis+sentinel://a,b:9/mymaster", "redis+sentinel://a:26379,b:9/mymaster"),
            ("rediss+sentinel://a,b/m/3", "rediss+sentinel://a:26379,b:26379/m/3"),
            ("redis+cluster://a:1,[::1]:2", "redis+cluster://a:1,[::1]:2"),
            ("rediss+cluster://u:s3cr@a/0", "rediss+cluster://u:…@a:6379"),
        ] {
            let url = read(text);
            assert_eq!(url.to_string(), expected);
            assert!(!format!("{url:?}").contains("s3"), "{url:?}");
        }
        assert_eq!(read("rediss://anna:s3%2Fcr@h").password().unwrap().expose_secret(), "s3/cr");
        assert_eq!(read("redis://anna@h").username.as_deref(), Some("anna"));
    }

    #[test]
    fn what_is_no_address_is_told_with_the_form_that_would_be_and_without_the_password() {
        for (text, expected) in [
            ("http://h", "`http://h` is no store: write `redis://HOST:PORT`"),
            ("redis+ring://h", "`redis+ring://h` is no address: write `redis://HOST:PORT`"),
            ("redis://", "`redis://` is no address: write one host"),
            ("redis://a,b", "`redis://a,b` is no address: write one host"),
            ("redis://u:s3@h:x", "`redis://…@h:x` is no address: write one host"),
            ("redis://u:s3/x@h", "`redis://…@h` is no address: write one host"),
            ("redis://h/zero", "`redis://h/zero` is no address: after the last `/`"),
            ("redis://h?db=1", "`redis://h?db=1` has more than host"),
            ("redis+sentinel://a,b", "`redis+sentinel://a,b` is no address: write the sentinels"),
            ("redis+sentinel://a,/m", "`redis+sentinel://a,/m` is no address: write the sentinels"),
            ("redis+cluster://a/1", "`redis+cluster://a/1` is no address: remove the database"),
            ("redis://u:%FF@h", "user or password is not UTF-8: "),
        ] {
            let told = RedisUrl::parse(text).unwrap_err();
            assert!(told.starts_with(expected), "{told}");
            assert!(!told.contains("s3"), "{told}");
        }
    }
}
