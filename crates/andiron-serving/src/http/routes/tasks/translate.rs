//! `POST /translate` and `GET /languages`, as LibreTranslate has them.
//!
//! Source: LibreTranslate 1.9, `libretranslate/app.py`. As there, a form is read like JSON, alternatives are distinct, so that there may
//! be fewer than were asked for, and an error is `{"error": "message"}`. Languages are not detected: `auto` is the source language
//! of a model that has one.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::rewrite::Rewriting;
use crate::http::fields::Fields;
use crate::http::inputs::{check_count, texts};
use crate::http::limits::{is_of_type, read_json, read_whole};
use crate::http::{ApiError, App, Phase};
use crate::registry::{Capability, LanguagePair, Served};

/// The source language that the server is to find out.
const AUTO: &str = "auto";

/// An error in LibreTranslate's shape.
pub(in crate::http::routes) struct TranslateError(ApiError);

impl From<ApiError> for TranslateError {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for TranslateError {
    fn into_response(self) -> Response {
        self.0.with_body(|error| json!({"error": error.to_string()}))
    }
}

/// One value, or a list if a list was sent.
#[derive(Serialize)]
#[serde(untagged)]
enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    fn new(mut values: Vec<T>, single: bool) -> Self {
        match single && values.len() == 1 {
            true => Self::One(values.swap_remove(0)),
            false => Self::Many(values),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http::routes) struct Translated {
    translated_text: OneOrMany<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alternatives: Option<OneOrMany<Vec<String>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detected_language: Option<OneOrMany<Detected>>,
}

#[derive(Clone, Serialize)]
struct Detected {
    /// From 0 to 100. Nothing was detected, so nothing is claimed.
    confidence: f32,
    language: String,
}

/// A checked request.
struct Plan {
    served: Arc<Served>,
    rewriting: Rewriting,
    single: bool,
    /// The language that `auto` stands for.
    detected: Option<String>,
}

/// Reads a request, for the description of the API.
pub(in crate::http::routes) fn describe(fields: &Fields<'_>, app: &App) -> Result<(), ApiError> {
    parse(fields, app).map(drop)
}

pub(in crate::http::routes) async fn create(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Translated>, TranslateError> {
    if app.shutdown.phase() != Phase::Serving {
        return Err(ApiError::shutting_down().into());
    }
    let (head, body) = request.into_parts();
    let is_form = is_form(&head.headers);
    let (body, reserved) = match is_form {
        true => read_whole(&app, &head.headers, body).await?,
        false => read_json(&app, &head.headers, body).await?,
    };
    let form = is_form.then(|| form_as_json(&body));
    let plan = parse(&Fields::parse(form.as_deref().unwrap_or(&body))?, &app)?;
    drop((body, form));
    let Plan { served, rewriting, single, detected } = plan;
    let with_alternatives = rewriting.alternatives > 0;
    let written = rewriting.write(&app, &served, app.config.access.client(&head)).await?;
    drop(reserved);
    let count = written.len();
    let (mut translations, mut alternatives) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for mut written in written {
        let mut others = written.texts.split_off(1);
        let best = written.texts.swap_remove(0);
        let mut seen = vec![best.clone()];
        others.retain(|other| {
            let is_new = !seen.contains(other);
            seen.extend(is_new.then(|| other.clone()));
            is_new
        });
        translations.push(best);
        alternatives.push(others);
    }
    let detected = detected.map(|language| vec![Detected { confidence: 0.0, language }; count]);
    Ok(Json(Translated {
        translated_text: OneOrMany::new(translations, single),
        alternatives: with_alternatives.then(|| OneOrMany::new(alternatives, single)),
        detected_language: detected.map(|detected| OneOrMany::new(detected, single)),
    }))
}

/// Whether the body is a form that no web page of another origin sent: a browser would not ask this server first, as for JSON.
fn is_form(headers: &HeaderMap) -> bool {
    is_of_type(headers, "application/x-www-form-urlencoded") && !headers.contains_key(header::ORIGIN)
}

/// The object of a form; numbers are numbers.
fn form_as_json(body: &[u8]) -> Vec<u8> {
    let value = |name: &str, text: &str| match text.parse::<u64>() {
        Ok(number) if name == "alternatives" => number.into(),
        _ => Value::from(text),
    };
    let pairs = form_urlencoded::parse(body);
    let object: Map<String, Value> =
        pairs.map(|(name, text)| (name.to_string(), value(&name, &text))).collect();
    Value::Object(object).to_string().into_bytes()
}

fn parse(fields: &Fields<'_>, app: &App) -> Result<Plan, ApiError> {
    const FORMATS: &str = "`text`";
    let served = app.served_for(fields.model()?.as_deref(), Capability::Translate)?;
    let sources = texts(fields, "q")?;
    check_count("q", sources.texts.len(), app.config.limits.max_sources)?;
    let source: String = fields.required("source", "a language code")?;
    let target: String = fields.required("target", "a language code")?;
    match fields.optional::<String>("format", FORMATS)?.as_deref() {
        None | Some("text" | "") => {}
        Some("html") => return Err(ApiError::unsupported("format", " but for `text`")),
        Some(_) => return Err(fields.unexpected("format", FORMATS)),
    }
    let alternatives = fields.count("alternatives", 0, app.config.limits.max_alternatives)?.unwrap_or(0);
    let detected = check_languages(&served.info.languages, &source, &target)?;
    let rewriting = Rewriting {
        wanted: Capability::Translate,
        param: "q",
        sources: sources.texts,
        max_tokens: fields.count("max_tokens", 1, app.config.limits.max_tokens)?,
        alternatives,
    };
    Ok(Plan { served, rewriting, single: sources.single, detected })
}

/// Checks that `pairs` has the languages of a request, if it has any; the language that `auto` stands for.
fn check_languages(pairs: &[LanguagePair], source: &str, target: &str) -> Result<Option<String>, ApiError> {
    if pairs.is_empty() {
        // Nothing is known of the model: it is as good as any that the client asks for.
        return match source {
            AUTO => Err(ApiError::unsupported("source", " as `auto`: name the language")),
            _ => Ok(None),
        };
    }
    let mut of_target = pairs.iter().filter(|pair| pair.target == target).peekable();
    if of_target.peek().is_none() {
        return Err(ApiError::invalid("target", format_args!("{} is not supported", short(target))));
    }
    if source != AUTO {
        let there = of_target.any(|pair| pair.source == source);
        let message = format_args!("{} is not supported for this target", short(source));
        return if there { Ok(None) } else { Err(ApiError::invalid("source", message)) };
    }
    match (of_target.next(), of_target.next()) {
        (Some(pair), None) => Ok(Some(pair.source.clone())),
        _ => Err(ApiError::unsupported("source", " as `auto`: name the language")),
    }
}

fn short(text: &str) -> String {
    text.chars().take(20).collect()
}

/// `GET /languages`: what the models translate.
pub(in crate::http::routes) async fn languages(State(app): State<Arc<App>>) -> Json<Vec<Language>> {
    let models = app.registry.list();
    let pairs = models.iter().flat_map(|served| &served.info.languages);
    let mut targets: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for LanguagePair { source, target } in pairs {
        targets.entry(target).or_default();
        let of_source = targets.entry(source).or_default();
        if !of_source.contains(&target.as_str()) {
            of_source.push(target);
        }
    }
    let languages = targets.into_iter().map(|(code, targets)| Language {
        code: code.to_owned(),
        name: language_name(code).to_owned(),
        targets: targets.into_iter().map(str::to_owned).collect(),
    });
    Json(languages.collect())
}

#[derive(Serialize)]
pub(in crate::http::routes) struct Language {
    code: String,
    name: String,
    targets: Vec<String>,
}

/// The English name of a language; its code if it is not among the common ones.
fn language_name(code: &str) -> &str {
    const NAMES: &[(&str, &str)] = &[
        ("ar", "Arabic"),
        ("cs", "Czech"),
        ("da", "Danish"),
        ("de", "German"),
        ("el", "Greek"),
        ("en", "English"),
        ("es", "Spanish"),
        ("fi", "Finnish"),
        ("fr", "French"),
        ("he", "Hebrew"),
        ("hi", "Hindi"),
        ("hu", "Hungarian"),
        ("id", "Indonesian"),
        ("it", "Italian"),
        ("ja", "Japanese"),
        ("ko", "Korean"),
        ("nl", "Dutch"),
        ("no", "Norwegian"),
        ("pl", "Polish"),
        ("pt", "Portuguese"),
        ("ro", "Romanian"),
        ("ru", "Russian"),
        ("sv", "Swedish"),
        ("th", "Thai"),
        ("tr", "Turkish"),
        ("uk", "Ukrainian"),
        ("vi", "Vietnamese"),
        ("zh", "Chinese"),
    ];
    NAMES.iter().find(|(known, _)| *known == code).map_or(code, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<LanguagePair> {
        let pair = |&(source, target): &(&str, &str)| LanguagePair {
            source: source.to_owned(),
            target: target.to_owned(),
        };
        pairs.iter().map(pair).collect()
    }

    #[track_caller]
    fn check(known: &[(&str, &str)], (source, target): (&str, &str), expected: Result<Option<&str>, &str>) {
        let found = check_languages(&pairs(known), source, target).map_err(|error| error.to_string());
        assert_eq!(found.as_ref().map(Option::as_deref).map_err(String::as_str), expected);
    }

    #[test]
    fn auto_is_the_only_source_language_of_a_target() {
        let two = [("en", "de"), ("de", "en"), ("fr", "en")];
        check(&two, ("en", "de"), Ok(None));
        check(&two, ("auto", "de"), Ok(Some("en")));
        check(&two, ("auto", "en"), Err("source: not supported by this server as `auto`: name the language"));
        check(&two, ("fr", "de"), Err("source: fr is not supported for this target"));
        check(&two, ("en", "ko"), Err("target: ko is not supported"));
        check(&[], ("xx", "yy"), Ok(None));
    }

    #[test]
    fn a_form_is_read_as_json() {
        let form = form_as_json(b"q=Guten+Tag%21&source=de&target=en&alternatives=2");
        let object: Value = serde_json::from_slice(&form).expect("JSON");
        assert_eq!(object, json!({"q": "Guten Tag!", "source": "de", "target": "en", "alternatives": 2}));
    }
}
