//! `GET /`, `GET /docs` and `GET /web/…`: the web page and the page of the API, whose files are part of the program.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};

use crate::http::App;

/// The page may run its own scripts and styles and talk to this server, nothing else. Scripts cannot turn text into HTML.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// A file of the page.
#[derive(Clone, Copy, Debug)]
struct Asset {
    /// Where it is served.
    path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

/// Rows of [`ASSETS`]: a path, its file, its content type.
macro_rules! assets {
    ($($path:literal $file:literal $content_type:ident)*) => {
        &[$(Asset {
            path: $path,
            content_type: $content_type,
            bytes: include_bytes!(concat!("../../web/", $file)),
        }),*]
    };
}

/// All files of the page.
const ASSETS: &[Asset] = assets! {
    "/" "index.html" HTML
    "/docs" "docs.html" HTML
    "/web/docs.css" "docs.css" CSS
    "/web/docs.js" "docs.js" SCRIPT
    "/web/style.css" "style.css" CSS
    "/web/icon.svg" "icon.svg" SVG
    "/web/app.js" "app.js" SCRIPT
    "/web/api.js" "api.js" SCRIPT
    "/web/attention.js" "attention.js" SCRIPT
    "/web/chat.js" "chat.js" SCRIPT
    "/web/chat_settings.js" "chat_settings.js" SCRIPT
    "/web/conversations.js" "conversations.js" SCRIPT
    "/web/dom.js" "dom.js" SCRIPT
    "/web/markdown.js" "markdown.js" SCRIPT
    "/web/parts.js" "parts.js" SCRIPT
    "/web/search.js" "search.js" SCRIPT
    "/web/store.js" "store.js" SCRIPT
    "/web/tasks.js" "tasks.js" SCRIPT
    "/web/texts.js" "texts.js" SCRIPT
    "/web/tokens.js" "tokens.js" SCRIPT
    "/web/write.js" "write.js" SCRIPT
};

/// Where each file is served, and how.
pub(super) fn routes() -> impl Iterator<Item = (&'static str, MethodRouter<Arc<App>>)> {
    let respond = |asset: Asset| get(move |request: HeaderMap| async move { asset.respond(&request) });
    ASSETS.iter().map(move |asset| (asset.path, respond(*asset)))
}

impl Asset {
    /// The file; 304 to a browser that has it already.
    fn respond(self, request: &HeaderMap) -> Response {
        let tag = self.tag();
        let known =
            request.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
        let mut response = match known {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => ([(header::CONTENT_TYPE, self.content_type)], self.bytes).into_response(),
        };
        let headers = response.headers_mut();
        for (name, value) in [
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CACHE_CONTROL, "no-cache"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            headers.insert(header::ETAG, tag);
        }
        response
    }

    /// Another one for other contents.
    fn tag(self) -> String {
        let mut hasher = std::hash::DefaultHasher::new();
        self.bytes.hash(&mut hasher);
        format!("\"{:016x}\"", hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn text(asset: &Asset) -> &str {
        std::str::from_utf8(asset.bytes).expect("files of the page are text")
    }

    #[test]
    fn every_file_of_the_folder_is_served() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/web");
        let files: BTreeSet<String> = std::fs::read_dir(folder)
            .expect("the folder")
            .map(|entry| entry.expect("a file").file_name().to_string_lossy().into_owned())
            .map(|name| match name.as_str() {
                "index.html" => "/".to_owned(),
                "docs.html" => "/docs".to_owned(),
                _ => format!("/web/{name}"),
            })
            .collect();
        assert_eq!(ASSETS.iter().map(|asset| asset.path.to_owned()).collect::<BTreeSet<_>>(), files);
    }

    #[test]
    fn scripts_import_files_that_there_are() {
        for script in ASSETS.iter().filter(|asset| asset.content_type == SCRIPT) {
            for line in text(script).lines().filter(|line| line.starts_with("import ")) {
                let file = line
                    .split('"')
                    .nth(1)
                    .and_then(|file| file.strip_prefix("./"))
                    .expect("a file beside it");
                assert!(
                    ASSETS.iter().any(|asset| asset.path == format!("/web/{file}")),
                    "{}: {line}",
                    script.path
                );
            }
        }
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere_and_no_text_becomes_html() {
        for asset in ASSETS {
            let text = text(asset).replace("http://www.w3.org/2000/svg", "");
            for banned in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "src=\"http",
                " url(",
                ":url(",
                "@import",
                " onclick=\"",
            ] {
                assert!(!text.contains(banned), "{} has {banned}", asset.path);
            }
        }
    }

    #[test]
    fn a_browser_that_has_a_file_gets_none() {
        let first = ASSETS[0].respond(&HeaderMap::new());
        assert_eq!(
            (first.status(), &first.headers()[header::CONTENT_TYPE]),
            (StatusCode::OK, &HeaderValue::from_static(HTML))
        );
        let known = HeaderMap::from_iter([(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone())]);
        let again = ASSETS[0].respond(&known);
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(again.headers()[header::CACHE_CONTROL], "no-cache");
        assert_eq!(ASSETS[1].respond(&known).status(), StatusCode::OK);
    }

    #[test]
    fn every_text_is_in_both_languages() {
        let texts = ASSETS.iter().find(|asset| asset.path == "/web/texts.js").map(text).expect("the table");
        let (_, table) = texts.split_once("\n  en: {").expect("English");
        let (table, _) = table.split_once("\n};").expect("its end");
        let (english, korean) = table.split_once("\n  ko: {").expect("Korean");
        let keys = |part: &str| -> BTreeSet<String> {
            // A key is a word before a colon, outside of a text.
            let outside = part.split('"').step_by(2).collect::<Vec<_>>().join("\"");
            let words =
                outside.split([',', '{', '\n', '"']).filter_map(|piece| piece.trim().strip_suffix(':'));
            words
                .filter(|word| word.chars().all(|c| c.is_alphanumeric() || c == '_'))
                .map(str::to_owned)
                .collect()
        };
        let (english, korean) = (keys(english), keys(korean));
        assert!(english.len() > 100, "{english:?}");
        assert_eq!(&english - &korean, BTreeSet::new());
        assert_eq!(&korean - &english, BTreeSet::new());
    }
}
