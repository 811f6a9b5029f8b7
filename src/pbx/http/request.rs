//! A request template as a whole, and the request that comes out of it.

use std::fmt;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value as Json};
use url::Url;

use super::{
    answer::Success,
    config::{ConfigError, Method, RequestConfig},
    template::{Kind, Leaf, RenderError, Template},
    values::{Field, Scope, Value, Values},
};

/// Headers that are not a template's business, each with who sets them.
const RESERVED: [(&str, &str); 8] = [
    ("host", "`base_url` sets it"),
    ("content-length", "it is counted"),
    ("transfer-encoding", "it is the connection's own"),
    ("connection", "it is the connection's own"),
    ("authorization", "secrets belong into `auth`"),
    ("webhook-id", "`signing_secrets` sets it"),
    ("webhook-timestamp", "`signing_secrets` sets it"),
    ("webhook-signature", "`signing_secrets` sets it"),
];

/// A checked request template.
#[derive(Debug, Clone)]
pub(super) struct RequestTemplate {
    method: reqwest::Method,
    target: Template,
    headers: Vec<(HeaderName, Template)>,
    body: Body,
    /// What a good answer is.
    pub(super) success: Success,
}

#[derive(Debug, Clone)]
enum Body {
    None,
    Json(Tree),
    Form(Vec<(String, Leaf)>),
    Xml(Template),
}

/// A JSON value whose texts are templates.
#[derive(Debug, Clone)]
enum Tree {
    Fixed(Json),
    Leaf(Leaf),
    List(Vec<Self>),
    Object(Vec<(String, Self)>),
}

/// A request that could be sent, without what identifies us.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) method: reqwest::Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Prepared {
    /// A bare GET.
    pub(super) fn get(url: Url) -> Self {
        Self { method: reqwest::Method::GET, url, headers: HeaderMap::new(), body: Bytes::new() }
    }
}

/// As a person reads it; whoever shows it sees to it that no secret is inside.
impl fmt::Display for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.method, self.url)?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {}", String::from_utf8_lossy(value.as_bytes()))?;
        }
        if self.body.is_empty() {
            return Ok(());
        }
        write!(f, "\n{}", String::from_utf8_lossy(&self.body))
    }
}

impl RequestTemplate {
    /// Checks the request that stands under `key`.
    pub(super) fn new(
        key: &str,
        config: &RequestConfig,
        success: &Success,
        scope: &Scope<'_>,
    ) -> Result<Self, ConfigError> {
        let target = parse(&format!("{key}.path"), &config.path, Kind::Target, scope)?;
        if is_unclear(config.path.split('?').next().unwrap_or_default()) {
            let problem = "an empty or a dot segment; write the path as it is meant";
            return Err(ConfigError::new(format!("{key}.path"), problem));
        }
        let mut headers = Vec::new();
        for (name, value) in &config.headers {
            let key = format!("{key}.headers.{name}");
            headers.push((header_name(&key, name)?, parse(&key, value, Kind::Header, scope)?));
        }
        let success = match &config.success {
            Some(own) => Success::new(&format!("{key}.success"), own)?,
            None => success.clone(),
        };
        let method = match config.method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            Method::Patch => reqwest::Method::PATCH,
            Method::Delete => reqwest::Method::DELETE,
        };
        Ok(Self { method, target, headers, body: Body::new(key, config, scope)?, success })
    }

    /// The request for these values.
    pub(super) fn prepare(&self, base: &str, values: &Values<'_>) -> Result<Prepared, RenderError> {
        let target = self.target.render(values)?;
        if is_unclear(target.split('?').next().unwrap_or_default()) {
            return Err(RenderError::Segment);
        }
        let url = Url::parse(&format!("{base}{target}")).map_err(|_| RenderError::Url)?;
        let mut headers = HeaderMap::new();
        for (name, template) in &self.headers {
            let value = HeaderValue::from_bytes(template.render(values)?.as_bytes());
            headers.insert(name.clone(), value.map_err(|_| RenderError::Control(format!("`{name}`")))?);
        }
        let body = self.body.render(values)?;
        if let Some(kind) = self.body.content_type() {
            headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(kind));
        }
        Ok(Prepared { method: self.method.clone(), url, headers, body: body.into() })
    }

    /// Terms of a profile without which this request cannot be made.
    pub(super) fn terms_needed(&self) -> Vec<&str> {
        let mut terms: Vec<&str> = self.target.terms_needed().collect();
        terms.extend(self.headers.iter().flat_map(|(_, template)| template.terms_needed()));
        match &self.body {
            Body::None => {}
            Body::Xml(template) => terms.extend(template.terms_needed()),
            Body::Form(leaves) => leaves.iter().for_each(|(_, leaf)| leaf_terms(leaf, &mut terms)),
            Body::Json(tree) => tree.leaves(&mut |leaf| leaf_terms(leaf, &mut terms)),
        }
        terms
    }

    /// Whether only a profile of ours has all the values it needs.
    pub(super) fn needs_profile(&self) -> bool {
        self.fields().into_iter().any(Field::is_of_profile)
    }

    /// Whether it tells the return time as a value of its own.
    pub(super) fn tells_until(&self) -> bool {
        self.fields().into_iter().any(|field| matches!(field, Field::Until(_)))
    }

    fn fields(&self) -> Vec<&Field> {
        let mut fields = self.target.fields();
        fields.extend(self.headers.iter().flat_map(|(_, template)| template.fields()));
        match &self.body {
            Body::None => {}
            Body::Xml(template) => fields.extend(template.fields()),
            Body::Form(leaves) => fields.extend(leaves.iter().flat_map(|(_, leaf)| leaf.fields())),
            Body::Json(tree) => tree.leaves(&mut |leaf| fields.extend(leaf.fields())),
        }
        fields
    }
}

fn leaf_terms<'a>(leaf: &'a Leaf, into: &mut Vec<&'a str>) {
    if let Leaf::Text(template) = leaf {
        into.extend(template.terms_needed());
    }
}

/// Parses one template, naming its key where it is wrong.
pub(super) fn parse(key: &str, source: &str, kind: Kind, scope: &Scope<'_>) -> Result<Template, ConfigError> {
    Template::parse(source, kind, scope).map_err(|error| ConfigError::new(key, error))
}

/// A header's name that a template or a token may use.
pub(super) fn header_name(key: &str, name: &str) -> Result<HeaderName, ConfigError> {
    let lower = name.to_ascii_lowercase();
    if let Some((_, who)) = RESERVED.iter().find(|(reserved, _)| *reserved == lower) {
        return Err(ConfigError::new(key, format!("this header cannot be set: {who}")));
    }
    HeaderName::try_from(name).map_err(|_| ConfigError::new(key, "is not the name of a header"))
}

/// Whether a server could take the path for another one: dots in any writing, or nothing between two slashes.
fn is_unclear(path: &str) -> bool {
    let unclear =
        |segment: &str| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    path.contains("//") || path.split('/').any(unclear)
}

impl Body {
    fn new(key: &str, config: &RequestConfig, scope: &Scope<'_>) -> Result<Self, ConfigError> {
        match (&config.json, &config.form, &config.xml) {
            (None, None, None) => Ok(Self::None),
            (Some(json), None, None) => Ok(Self::Json(Tree::new(&format!("{key}.json"), json, scope)?)),
            (None, Some(form), None) => {
                let mut leaves = Vec::new();
                for (name, value) in form {
                    let key = format!("{key}.form.{name}");
                    let leaf = Leaf::parse(value, scope).map_err(|error| ConfigError::new(&key, error))?;
                    if matches!(leaf, Leaf::Typed { omit: false, .. }) {
                        return Err(ConfigError::new(key, "a form has no types; write `|omit` or `?TEXT`"));
                    }
                    leaves.push((name.clone(), leaf));
                }
                Ok(Self::Form(leaves))
            }
            (None, None, Some(xml)) => Ok(Self::Xml(parse(&format!("{key}.xml"), xml, Kind::Xml, scope)?)),
            _ => Err(ConfigError::new(key, "has two bodies; keep one of `json`, `form` and `xml`")),
        }
    }

    fn content_type(&self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Json(_) => Some("application/json"),
            Self::Form(_) => Some("application/x-www-form-urlencoded"),
            Self::Xml(_) => Some("application/xml; charset=utf-8"),
        }
    }

    fn render(&self, values: &Values<'_>) -> Result<String, RenderError> {
        match self {
            Self::None => Ok(String::new()),
            Self::Json(tree) => Ok(tree.render(values)?.unwrap_or(Json::Null).to_string()),
            Self::Xml(template) => template.render(values),
            Self::Form(leaves) => {
                let mut form = url::form_urlencoded::Serializer::new(String::new());
                for (name, leaf) in leaves {
                    match leaf {
                        Leaf::Text(template) => {
                            form.append_pair(name, &template.render(values)?);
                        }
                        Leaf::Typed { field, .. } => {
                            if let Some(value) = values.get(field) {
                                form.append_pair(name, &value.into_text());
                            }
                        }
                    }
                }
                Ok(form.finish())
            }
        }
    }
}

impl Tree {
    fn new(key: &str, json: &Json, scope: &Scope<'_>) -> Result<Self, ConfigError> {
        Ok(match json {
            Json::String(text) => {
                Self::Leaf(Leaf::parse(text, scope).map_err(|error| ConfigError::new(key, error))?)
            }
            Json::Array(items) => {
                let item = |(i, item)| Self::new(&format!("{key}[{i}]"), item, scope);
                Self::List(items.iter().enumerate().map(item).collect::<Result<_, _>>()?)
            }
            Json::Object(entries) if entries.keys().any(|name| name.starts_with("$__toml")) => {
                return Err(ConfigError::new(
                    key,
                    "is a bare date of TOML, which JSON has not; put it in quotes",
                ));
            }
            Json::Object(entries) => {
                let entry = |(name, value): (&String, &Json)| {
                    Ok((name.clone(), Self::new(&format!("{key}.{name}"), value, scope)?))
                };
                Self::Object(entries.iter().map(entry).collect::<Result<_, ConfigError>>()?)
            }
            fixed => Self::Fixed(fixed.clone()),
        })
    }

    fn leaves<'a>(&'a self, visit: &mut dyn FnMut(&'a Leaf)) {
        match self {
            Self::Fixed(_) => {}
            Self::Leaf(leaf) => visit(leaf),
            Self::List(items) => items.iter().for_each(|item| item.leaves(visit)),
            Self::Object(entries) => entries.iter().for_each(|(_, item)| item.leaves(visit)),
        }
    }

    /// `None` where the entry is to be left out.
    fn render(&self, values: &Values<'_>) -> Result<Option<Json>, RenderError> {
        Ok(Some(match self {
            Self::Fixed(json) => json.clone(),
            Self::Leaf(Leaf::Text(template)) => Json::String(template.render(values)?),
            Self::Leaf(Leaf::Typed { name, field, omit }) => match values.get(field) {
                Some(Value::Text(text)) => Json::String(text),
                Some(Value::Number(number)) => Json::from(number),
                None if *omit => return Ok(None),
                None if field.may_be_absent() => Json::Null,
                None => return Err(RenderError::Absent(format!("`{name}`"))),
            },
            Self::List(items) => {
                let rendered: Result<Vec<_>, _> = items.iter().map(|item| item.render(values)).collect();
                Json::Array(rendered?.into_iter().flatten().collect())
            }
            Self::Object(entries) => {
                let mut object = Map::new();
                for (name, item) in entries {
                    if let Some(value) = item.render(values)? {
                        object.insert(name.clone(), value);
                    }
                }
                Json::Object(object)
            }
        }))
    }
}
