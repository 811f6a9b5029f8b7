//! The login stand-in: tokens for client credentials (secret, certificate, federated) and
//! the admin consent page.

use std::{collections::HashMap, sync::Arc, time::Duration};

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rand::RngCore;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    http::{Reply, Request},
    journal::Record,
    lock, read,
    world::{App, TokenHolder, World},
    write,
};

/// What the administrator answers on the consent page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConsentAnswer {
    /// Grants.
    #[default]
    Grant,
    /// Cancels; answered in the form of the old endpoint.
    RefuseV1,
    /// Cancels; answered in the form of the new endpoint, with `admin_consent=True`.
    RefuseV2,
}

/// Knobs of the login stand-in.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoginKnobs {
    /// Tenant whose administrator signs in on the consent page; absent = the first.
    pub signing_in_tenant: Option<String>,
    /// What that administrator answers.
    pub consent_answer: ConsentAnswer,
    /// Life of new tokens, if other than the option.
    #[serde(with = "secs")]
    pub token_lifetime: Option<Duration>,
    /// Next so many token requests answer 503 with `Retry-After: 5`.
    pub fail_next: u32,
    /// New tokens are refused by conditional access.
    pub conditional_access: bool,
    #[serde(skip)]
    seen_assertions: HashMap<String, Timestamp>,
}

mod secs {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.serialize_some(&value.as_secs()),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_secs))
    }
}

struct Refusal {
    status: u16,
    error: &'static str,
    code: u32,
    text: String,
}

fn refuse(status: u16, error: &'static str, code: u32, text: impl Into<String>) -> Refusal {
    Refusal { status, error, code, text: text.into() }
}

/// `POST /{tenant}/oauth2/v2.0/token`
pub(crate) async fn token(world: &Arc<World>, request: &Request, tenant: &str) -> Reply {
    if request.method != "POST" {
        return Reply::empty(405);
    }
    let form: HashMap<String, String> = request.form().into_iter().collect();
    let mut client_id = form.get("client_id").cloned().unwrap_or_default();
    let mut secret = form.get("client_secret").cloned();
    if let Some((user, password)) = basic(request) {
        client_id = user;
        secret = Some(password);
    }
    let credential = match (&secret, form.get("client_assertion")) {
        (_, Some(assertion)) => kind_of_assertion(assertion, &client_id),
        (Some(_), None) => "secret",
        (None, None) => "none",
    };
    let result = issue(world, request, tenant, &form, &client_id, secret.as_deref());
    let (reply, code) = match result {
        Ok(token) => {
            let life = world.token_lifetime().as_secs();
            let body = json!({
                "token_type": "Bearer", "expires_in": life, "ext_expires_in": life,
                "access_token": token,
            });
            (Reply::json(200, &body), None)
        }
        Err(refusal) => {
            let code = refusal.code;
            (refused(world, request, &refusal), Some(code))
        }
    };
    world.journal.write(Record::Token {
        tenant: tenant.to_owned(),
        client_id,
        credential,
        status: reply.status,
        code,
    });
    reply.header("cache-control", "no-store, no-cache")
}

fn refused(world: &World, request: &Request, refusal: &Refusal) -> Reply {
    let trace = Uuid::new_v4().to_string();
    let correlation =
        request.header("client-request-id").map_or_else(|| Uuid::new_v4().to_string(), str::to_owned);
    let at = world.clock.now().strftime("%Y-%m-%d %H:%M:%SZ").to_string();
    let Refusal { status, error, code, text } = refusal;
    let body = json!({
        "error": error,
        "error_description": format!(
            "AADSTS{code}: {text} Trace ID: {trace} Correlation ID: {correlation} Timestamp: {at}"
        ),
        "error_codes": [code],
        "timestamp": at,
        "trace_id": trace,
        "correlation_id": correlation,
        "error_uri": format!("https://login.microsoftonline.com/error?code={code}"),
    });
    let reply = Reply::json(*status, &body);
    if *status == 503 { reply.header("retry-after", "5") } else { reply }
}

fn basic(request: &Request) -> Option<(String, String)> {
    let encoded = request.header("authorization")?.strip_prefix("Basic ")?;
    let text = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    let decode = |text: &str| {
        percent_encoding::percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
    };
    Some((decode(user), decode(password)))
}

fn issue(
    world: &World,
    request: &Request,
    tenant: &str,
    form: &HashMap<String, String>,
    client_id: &str,
    secret: Option<&str>,
) -> Result<String, Refusal> {
    {
        let mut knobs = lock(&world.login);
        if knobs.fail_next > 0 {
            knobs.fail_next -= 1;
            return Err(refuse(
                503,
                "temporarily_unavailable",
                90033,
                "A transient error has occurred. Please try again.",
            ));
        }
    }
    if !request
        .header("content-type")
        .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"))
    {
        return Err(refuse(
            400,
            "invalid_request",
            900_144,
            "The request body must contain the following parameter: 'grant_type'.",
        ));
    }
    if Uuid::parse_str(tenant).is_err() && !tenant.contains('.') {
        return Err(refuse(
            400,
            "invalid_request",
            900_023,
            "Specified tenant identifier is neither a valid DNS name, nor a valid external domain.",
        ));
    }
    let Some(tenant) = world.tenant(tenant) else {
        return Err(refuse(400, "invalid_request", 90002, "Tenant not found."));
    };
    match form.get("grant_type").map(String::as_str) {
        Some("client_credentials") => {}
        None => {
            return Err(refuse(
                400,
                "invalid_request",
                900_144,
                "The request body must contain the following parameter: 'grant_type'.",
            ));
        }
        Some(_) => {
            return Err(refuse(
                400,
                "unsupported_grant_type",
                70003,
                "The app requested an unsupported grant type.",
            ));
        }
    }
    check_scope(world, form.get("scope").map_or("", String::as_str))?;
    let not_here = || {
        refuse(
            400,
            "unauthorized_client",
            700_016,
            format!(
                "Application with identifier '{client_id}' was not found in the directory '{}'.",
                tenant.name
            ),
        )
    };
    let app = world.app(client_id).ok_or_else(not_here)?;
    let grant = read(&tenant.grants).get(&client_id.to_lowercase()).cloned().ok_or_else(not_here)?;
    if grant.disabled {
        return Err(refuse(
            400,
            "unauthorized_client",
            7_000_112,
            format!("Application '{client_id}' is disabled."),
        ));
    }
    let secret = match (form.get("client_assertion"), secret) {
        (Some(assertion), None) => {
            if form.get("client_assertion_type").map(String::as_str)
                != Some("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
            {
                return Err(refuse(401, "invalid_client", 50027, "Invalid client assertion type."));
            }
            check_assertion(world, &app, &tenant.id, &tenant.domain, assertion)?;
            None
        }
        (None, Some(secret)) => Some(check_secret(&app, secret)?),
        (Some(_), Some(_)) => {
            return Err(refuse(
                400,
                "invalid_request",
                90014,
                "Only one of client_secret and client_assertion may be sent.",
            ));
        }
        (None, None) => {
            return Err(refuse(
                401,
                "invalid_client",
                7_000_218,
                "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
            ));
        }
    };
    if lock(&world.login).conditional_access {
        return Err(refuse(
            400,
            "invalid_grant",
            53003,
            "Access has been blocked by Conditional Access policies.",
        ));
    }
    let mut bytes = [0_u8; 48];
    rand::rng().fill_bytes(&mut bytes);
    let token = format!("sim.{}", BASE64_URL_SAFE_NO_PAD.encode(bytes));
    let life = SignedDuration::try_from(world.token_lifetime()).unwrap_or_default();
    let now = world.clock.now();
    let mut tokens = write(&world.tokens);
    if tokens.len() > 10_000 {
        tokens.retain(|_, token| token.expires > now);
    }
    tokens.insert(
        token.clone(),
        TokenHolder {
            tenant: tenant.clone(),
            app: app.spec.client_id.to_lowercase(),
            expires: now.checked_add(life).unwrap_or(Timestamp::MAX),
            permissions: Arc::new(grant.permissions),
            principal: grant.principal,
            secret,
        },
    );
    Ok(token)
}

fn check_scope(world: &World, scope: &str) -> Result<(), Refusal> {
    if scope.split(' ').filter(|part| !part.is_empty()).count() != 1 {
        return Err(refuse(
            400,
            "invalid_scope",
            70011,
            "The provided value for the input parameter 'scope' is not valid.",
        ));
    }
    let Some(resource) = scope.strip_suffix("/.default") else {
        return Err(refuse(
            400,
            "invalid_scope",
            1_002_012,
            "The provided value for scope is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier.",
        ));
    };
    let resource = resource.trim_end_matches('/');
    if resource == world.base_url || graph_hosts().any(|host| resource == host) {
        return Ok(());
    }
    Err(refuse(
        400,
        "invalid_resource",
        500_011,
        format!("The resource principal named {resource} was not found in the tenant."),
    ))
}

fn graph_hosts() -> impl Iterator<Item = &'static str> {
    [
        "https://graph.microsoft.com",
        "https://graph.microsoft.us",
        "https://dod-graph.microsoft.us",
        "https://microsoftgraph.chinacloudapi.cn",
    ]
    .into_iter()
}

/// Which of the app's secrets it is.
fn check_secret(app: &App, secret: &str) -> Result<usize, Refusal> {
    if let Some(place) = app.spec.secrets.iter().position(|one| one == secret) {
        return Ok(place);
    }
    if app.spec.expired_secrets.iter().any(|one| one == secret) {
        return Err(refuse(
            401,
            "invalid_client",
            7_000_222,
            "The provided client secret keys for app are expired.",
        ));
    }
    Err(refuse(
        401,
        "invalid_client",
        7_000_215,
        format!(
            "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '{}'.",
            app.spec.client_id
        ),
    ))
}

fn claims_of(assertion: &str) -> Option<Value> {
    let part = assertion.split('.').nth(1)?;
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

fn header_of(assertion: &str) -> Option<Value> {
    let part = assertion.split('.').next()?;
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

fn kind_of_assertion(assertion: &str, client_id: &str) -> &'static str {
    let issuer = claims_of(assertion).and_then(|claims| Some(claims["iss"].as_str()?.to_owned()));
    match issuer {
        Some(issuer) if issuer.eq_ignore_ascii_case(client_id) => "certificate",
        _ => "federated",
    }
}

fn verified(assertion: &str, pem: &str, algorithm: Algorithm) -> bool {
    let Ok(key) = DecodingKey::from_rsa_pem(pem.as_bytes()) else {
        return false;
    };
    // Times and audiences are checked by the caller, on the simulator's clock.
    let mut validation = Validation::new(algorithm);
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    jsonwebtoken::decode::<Value>(assertion, &key, &validation).is_ok()
}

/// SHA-256 of the certificate's DER, if the PEM is a certificate.
fn thumbprint(pem: &str) -> Option<String> {
    let body = pem.split("-----BEGIN CERTIFICATE-----").nth(1)?.split("-----END CERTIFICATE-----").next()?;
    let body: String = body.split_whitespace().collect();
    let der = BASE64_STANDARD.decode(body).ok()?;
    Some(BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(der)))
}

fn check_assertion(
    world: &World,
    app: &App,
    tenant: &str,
    domain: &str,
    assertion: &str,
) -> Result<(), Refusal> {
    let malformed = || refuse(401, "invalid_client", 50027, "JWT token is invalid or malformed.");
    let header = header_of(assertion).ok_or_else(malformed)?;
    let claims = claims_of(assertion).ok_or_else(malformed)?;
    let text = |name: &str| claims[name].as_str().unwrap_or_default().to_owned();
    let now = world.clock.now().as_second();
    let in_time = claims["exp"].as_i64().is_some_and(|exp| exp > now)
        && claims["nbf"].as_i64().is_none_or(|nbf| nbf <= now + 300);
    let out_of_time =
        || refuse(401, "invalid_client", 700_024, "Client assertion is not within its valid time range.");
    let client_id = &app.spec.client_id;
    if !text("iss").eq_ignore_ascii_case(client_id) {
        let found = app.spec.federated.iter().find(|one| {
            one.issuer == text("iss") && one.subject == text("sub") && has_audience(&claims, &one.audience)
        });
        let Some(found) = found else {
            return Err(refuse(
                401,
                "invalid_client",
                700_213,
                "No matching federated identity record found for presented assertion subject.",
            ));
        };
        if !verified(assertion, &found.key_pem, Algorithm::RS256) {
            return Err(refuse(
                401,
                "invalid_client",
                700_211,
                "No matching federated identity record found for presented assertion issuer.",
            ));
        }
        return if in_time { Ok(()) } else { Err(out_of_time()) };
    }
    let unknown = |why: &str| {
        refuse(
            401,
            "invalid_client",
            700_027,
            format!(
                "The certificate with identifier used to sign the client assertion is not registered on application. {why}"
            ),
        )
    };
    if header["alg"] != "PS256" {
        return Err(unknown("Expected alg PS256."));
    }
    let Some(x5t) = header["x5t#S256"].as_str() else {
        return Err(unknown("Header x5t#S256 is missing."));
    };
    let signed = app.spec.certificates.iter().any(|pem| {
        thumbprint(pem).is_none_or(|print| print == x5t) && verified(assertion, pem, Algorithm::PS256)
    });
    if !signed {
        return Err(unknown("Key was not found or the signature is wrong."));
    }
    if !text("sub").eq_ignore_ascii_case(client_id) {
        return Err(refuse(
            401,
            "invalid_client",
            700_021,
            "Client assertion application identifier doesn't match 'client_id' parameter.",
        ));
    }
    let good_audience = world.options.login_audience_hosts.iter().any(|host| {
        [tenant, domain]
            .iter()
            .any(|tenant| has_audience(&claims, &format!("https://{host}/{tenant}/oauth2/v2.0/token")))
    });
    if !good_audience {
        return Err(refuse(
            401,
            "invalid_client",
            700_023,
            format!(
                "Client assertion audience claim does not match Realm issuer. Expected https://{}/{tenant}/oauth2/v2.0/token, got {}.",
                world.options.login_audience_hosts.first().map_or("", String::as_str),
                claims["aud"]
            ),
        ));
    }
    if !in_time {
        return Err(out_of_time());
    }
    let exp = claims["exp"].as_i64().unwrap_or(0);
    if exp > now + 600 {
        world.journal.violation("assertion-too-long", format!("lives {} s", exp - now));
    }
    let jti = text("jti");
    if jti.is_empty() {
        world.journal.violation("assertion-without-jti", "");
    } else {
        let mut knobs = lock(&world.login);
        let seen = &mut knobs.seen_assertions;
        seen.retain(|_, until| until.as_second() > now);
        let until = Timestamp::from_second(exp).unwrap_or(Timestamp::MAX);
        if seen.insert(jti, until).is_some() {
            world.journal.violation("assertion-reused", "same jti twice");
        }
    }
    Ok(())
}

fn has_audience(claims: &Value, wanted: &str) -> bool {
    match &claims["aud"] {
        Value::String(one) => one.eq_ignore_ascii_case(wanted),
        Value::Array(many) => many.iter().any(|one| one == wanted),
        _ => false,
    }
}

/// `GET /{tenant}/v2.0/adminconsent` and `GET /{tenant}/adminconsent`
pub(crate) fn admin_consent(world: &Arc<World>, request: &Request, path: &str, v2: bool) -> Reply {
    let client_id = request.param("client_id").unwrap_or_default().to_owned();
    let knobs = lock(&world.login).clone();
    let outcome = |tenant: &str, status: u16, outcome: &str| {
        world.journal.write(Record::Consent {
            tenant: tenant.to_owned(),
            client_id: client_id.clone(),
            status,
            outcome: outcome.to_owned(),
        });
    };
    let page = |why: &str| {
        outcome(path, 400, why);
        Reply::text(
            400,
            "text/html; charset=utf-8",
            format!("<html><body>Sorry, but we're having trouble signing you in. {why}</body></html>"),
        )
    };
    if request.method != "GET" {
        return Reply::empty(405);
    }
    let Some(app) = world.app(&client_id) else {
        return page("AADSTS700016: unknown client_id.");
    };
    let Some(redirect) =
        request.param("redirect_uri").filter(|uri| app.spec.redirect_uris.iter().any(|one| one == uri))
    else {
        return page("AADSTS50011: the redirect_uri is not registered.");
    };
    let scope = request.param("scope").unwrap_or_default();
    if v2 && !scope.ends_with("/.default") {
        return page("AADSTS90014: scope is missing or is not a .default scope.");
    }
    if v2 && path == "common" {
        return page("AADSTS90014: use organizations instead of common.");
    }
    if request.param("state").unwrap_or_default().is_empty() {
        world.journal.violation("consent-without-state", request.path.clone());
    }
    let any = path == "organizations" || path == "common";
    let tenant = if any {
        match &knobs.signing_in_tenant {
            Some(tenant) => world.tenant(tenant),
            None => world.first_tenant(),
        }
    } else {
        world.tenant(path)
    };
    let Some(tenant) = tenant else {
        return page("AADSTS90002: tenant not found.");
    };
    let mut answer: Vec<(&str, &str)> = Vec::new();
    match knobs.consent_answer {
        ConsentAnswer::Grant => {
            if world.consent(&tenant.id, &client_id).is_err() {
                return page("AADSTS90002: tenant not found.");
            }
            answer.extend([("admin_consent", "True"), ("tenant", &tenant.id)]);
            if v2 {
                answer.push(("scope", scope));
            }
        }
        ConsentAnswer::RefuseV1 => answer.extend([
            ("error", "permission_denied"),
            ("error_description", "The admin canceled the request"),
        ]),
        ConsentAnswer::RefuseV2 => answer.extend([
            ("admin_consent", "True"),
            ("error", "consent_required"),
            (
                "error_description",
                "AADSTS65004: The resource owner or authorization server denied the request.\r\nTrace ID: 0000aaaa-11bb-cccc-dd22-eeeeee333333",
            ),
        ]),
    }
    if let Some(state) = request.param("state") {
        answer.push(("state", state));
    }
    outcome(
        &tenant.id,
        302,
        if knobs.consent_answer == ConsentAnswer::Grant { "granted" } else { "refused" },
    );
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(answer).finish();
    let joint = if redirect.contains('?') { '&' } else { '?' };
    Reply::empty(302).header("location", format!("{redirect}{joint}{query}"))
}
