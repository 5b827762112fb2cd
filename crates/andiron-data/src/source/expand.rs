//! Expansion of files, directories and patterns to a list of files.

use std::collections::HashSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{OnError, SourceError};

/// The result of [`expand`].
#[derive(Debug, Default)]
pub struct Expanded {
    /// The files, in the order given; directories are replaced by the files below them and patterns by what they match, sorted
    /// by name.
    pub files: Vec<PathBuf>,
    /// The name of each file: its path below the directory that was asked for, or below the folders that a pattern names, with
    /// `/` between folders; else its own name. It is the same wherever the directory stands.
    pub names: Vec<String>,
    /// Directory entries that were left out. Names that begin with a dot are left out silently.
    pub passed_over: Vec<PassedOver>,
}

/// A directory entry that is not read.
#[derive(Debug)]
pub struct PassedOver {
    /// Where it is.
    pub path: PathBuf,
    /// Why.
    pub why: WhyPassedOver,
}

/// Why a directory entry is not read.
#[derive(Debug)]
#[non_exhaustive]
pub enum WhyPassedOver {
    /// It is a link to a directory that was read under another name, such as one above it.
    AlreadyRead,
    /// It is a pipe, a socket or a device.
    Special,
    /// It is a broken link, or links form a cycle.
    LeadsNowhere,
    /// It is an image, a font, a sound or a film, by its extension: folders of web pages hold them.
    NoText,
    /// It cannot be read, such as a closed directory.
    Unreadable(io::Error),
}

impl fmt::Display for WhyPassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyRead => f.write_str("a link to a folder that is read already"),
            Self::Special => f.write_str("no ordinary file"),
            Self::NoText => f.write_str("no text, by its extension"),
            Self::LeadsNowhere => f.write_str("a link that leads nowhere"),
            Self::Unreadable(error) => write!(f, "cannot be read: {error}"),
        }
    }
}

/// Expands `paths` to files, in a fixed order. Links are followed; each directory is read once, so that cycles of links end.
///
/// A path that does not exist is a pattern if it has `*`, `?` or `[`: `*` matches within a name, `**` any folders. Directories
/// that match are expanded too.
///
/// # Errors
/// If a path does not exist, a pattern matches nothing, or, unless `on_error` says to skip, something in a directory cannot be read.
pub fn expand(paths: &[PathBuf], on_error: OnError) -> Result<Expanded, SourceError> {
    let mut expanded = Expanded::default();
    for path in paths {
        let metadata = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && is_pattern(path) => {
                let fixed: PathBuf =
                    path.components().take_while(|part| !is_pattern(part.as_ref())).collect();
                for path in matches(path, on_error, &mut expanded)? {
                    let metadata = fs::metadata(&path).map_err(reading(&path))?;
                    expand_one(path, &fixed, &metadata, on_error, &mut expanded)?;
                }
                continue;
            }
            metadata => metadata.map_err(reading(path))?,
        };
        let root = if metadata.is_dir() { path.as_path() } else { path.parent().unwrap_or(path) };
        expand_one(path.clone(), root, &metadata, on_error, &mut expanded)?;
    }
    Ok(expanded)
}

impl Expanded {
    /// Adds a file that was found below `root`.
    fn push(&mut self, path: PathBuf, root: &Path) {
        let below = path.strip_prefix(root).unwrap_or(&path);
        let parts = below.components().map(|part| part.as_os_str().to_string_lossy());
        self.names.push(parts.collect::<Vec<_>>().join("/"));
        self.files.push(path);
    }
}

/// Expands a path that was asked for by name or matches a pattern.
fn expand_one(
    path: PathBuf,
    root: &Path,
    metadata: &fs::Metadata,
    on_error: OnError,
    expanded: &mut Expanded,
) -> Result<(), SourceError> {
    if !metadata.is_dir() {
        expanded.push(path, root);
        return Ok(());
    }
    let mut seen = HashSet::new();
    // What was asked for by name is an error in any case.
    let entries = enter(&path, &mut seen).map_err(reading(&path))?;
    walk((entries.unwrap_or_default(), root), on_error, &mut seen, expanded)
}

fn is_pattern(path: &Path) -> bool {
    path.to_string_lossy().contains(['*', '?', '['])
}

/// What matches a pattern, sorted by name. Names that begin with a dot match only if the pattern has the dot.
fn matches(pattern: &Path, on_error: OnError, expanded: &mut Expanded) -> Result<Vec<PathBuf>, SourceError> {
    let pattern = pattern.to_string_lossy().into_owned();
    let options = glob::MatchOptions { require_literal_leading_dot: true, ..glob::MatchOptions::default() };
    let problem = |problem: String| SourceError::Pattern { pattern: pattern.clone(), problem };
    let mut found = Vec::new();
    for entry in glob::glob_with(&pattern, options).map_err(|error| problem(error.to_string()))? {
        match entry {
            Ok(path) if fs::metadata(&path).is_err() => {
                expanded.passed_over.push(PassedOver { path, why: WhyPassedOver::LeadsNowhere });
            }
            Ok(path) => found.push(path),
            Err(error) if on_error == OnError::Fail => {
                let path = error.path().to_owned();
                return Err(SourceError::Read { path, source: error.into() });
            }
            Err(error) => {
                let path = error.path().to_owned();
                let why = WhyPassedOver::Unreadable(error.into());
                expanded.passed_over.push(PassedOver { path, why });
            }
        }
    }
    if found.is_empty() {
        return Err(problem("no file matches it".to_owned()));
    }
    Ok(found)
}

fn reading(path: &Path) -> impl FnOnce(io::Error) -> SourceError {
    let path = path.to_owned();
    |source| SourceError::Read { path, source }
}

/// Reads directory entries below a root, from the last of `waiting` on.
fn walk(
    (mut waiting, root): (Vec<PathBuf>, &Path),
    on_error: OnError,
    seen: &mut HashSet<PathBuf>,
    expanded: &mut Expanded,
) -> Result<(), SourceError> {
    while let Some(path) = waiting.pop() {
        let mut look = || -> io::Result<Option<WhyPassedOver>> {
            let metadata = fs::metadata(&path)?;
            if metadata.is_file() && is_media(&path) {
                return Ok(Some(WhyPassedOver::NoText));
            } else if metadata.is_file() {
                expanded.push(path.clone(), root);
            } else if !metadata.is_dir() {
                return Ok(Some(WhyPassedOver::Special));
            } else if let Some(below) = enter(&path, seen)? {
                waiting.extend(below);
            } else {
                return Ok(Some(WhyPassedOver::AlreadyRead));
            }
            Ok(None)
        };
        let why = match look() {
            Ok(why) => why,
            // Folders hold such links, and they hold no text.
            Err(_) if leads_nowhere(&path) => Some(WhyPassedOver::LeadsNowhere),
            Err(source) if on_error == OnError::Fail => return Err(SourceError::Read { path, source }),
            Err(error) => Some(WhyPassedOver::Unreadable(error)),
        };
        expanded.passed_over.extend(why.map(|why| PassedOver { path, why }));
    }
    Ok(())
}

/// Whether a file is an image, a font, a sound or a film.
fn is_media(path: &Path) -> bool {
    const MEDIA: [&str; 27] = [
        "png", "jpg", "jpeg", "gif", "webp", "avif", "bmp", "tif", "tiff", "ico", "svg", "svgz", "woff",
        "woff2", "ttf", "otf", "eot", "mp3", "ogg", "opus", "wav", "flac", "mp4", "webm", "mkv", "mov",
        "avi",
    ];
    MEDIA.contains(&super::extension(path).as_str())
}

/// Whether `path` is a broken link or part of a cycle of links.
fn leads_nowhere(path: &Path) -> bool {
    let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    // The standard library has no stable name for links in a circle.
    let circle = if cfg!(target_os = "linux") { 40 } else { 62 };
    is_link
        && fs::metadata(path).is_err_and(|error| {
            error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(circle)
        })
}

/// The entries of a directory, the first name last; `None` if it was read before.
fn enter(dir: &Path, seen: &mut HashSet<PathBuf>) -> io::Result<Option<Vec<PathBuf>>> {
    if !seen.insert(fs::canonicalize(dir)?) {
        return Ok(None);
    }
    let mut below = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            below.push(entry.path());
        }
    }
    below.sort_by(|a, b| b.cmp(a));
    Ok(Some(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(expanded: &Expanded) -> Vec<String> {
        expanded.files.iter().map(|path| super::super::file_name(path)).collect()
    }

    #[test]
    fn directories_are_expanded_in_order() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("m")).unwrap();
        for name in ["z.txt", "a.txt", ".hidden", "m/b.txt"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        let expanded = expand(&[dir.path().join("z.txt"), dir.path().to_owned()], OnError::Fail).unwrap();
        assert_eq!(names(&expanded), ["z.txt", "a.txt", "b.txt", "z.txt"]);
        assert_eq!(expanded.names, ["z.txt", "a.txt", "m/b.txt", "z.txt"]);
        assert!(expanded.passed_over.is_empty());
    }

    #[test]
    fn pictures_in_a_folder_of_pages_are_left_out_unless_they_are_named() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.html", "b.PNG", "c.woff2"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        let expanded = expand(&[dir.path().to_owned()], OnError::Fail).unwrap();
        assert_eq!(names(&expanded), ["a.html"]);
        let why: Vec<String> = expanded.passed_over.iter().map(|one| one.why.to_string()).collect();
        assert_eq!(why, ["no text, by its extension"; 2]);
        assert_eq!(names(&expand(&[dir.path().join("b.PNG")], OnError::Fail).unwrap()), ["b.PNG"]);
    }

    #[test]
    fn patterns_are_expanded() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("m/n")).unwrap();
        for name in ["b.txt", "a.txt", "c.md", ".hidden.txt", "m/d.txt", "m/n/e.txt", "[x].txt"] {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        let of = |pattern: &str| expand(&[dir.path().join(pattern)], OnError::Fail);
        assert_eq!(names(&of("?.txt").unwrap()), ["a.txt", "b.txt"]);
        assert_eq!(names(&of("**/[de].*").unwrap()), ["d.txt", "e.txt"]);
        assert_eq!(of("**/[de].*").unwrap().names, ["m/d.txt", "m/n/e.txt"]);
        assert_eq!(of("m/*/e.txt").unwrap().names, ["n/e.txt"]);
        assert_eq!(names(&of("m*").unwrap()), ["d.txt", "e.txt"]);
        assert_eq!(of("m*").unwrap().names, ["m/d.txt", "m/n/e.txt"]);
        // A file with this very name is no pattern.
        assert_eq!(names(&of("[x].txt").unwrap()), ["[x].txt"]);
        let error = of("*.csv").unwrap_err().to_string();
        assert!(error.ends_with("*.csv: no file matches it"), "{error}");
        assert!(of("a[").is_err() && of("missing.txt").is_err());
    }

    #[cfg(unix)]
    mod links {
        use std::os::unix::fs::symlink;
        use std::os::unix::net::UnixListener;

        use super::*;

        /// The names of the entries that were left out, with the reason.
        fn left_out(expanded: &Expanded) -> Vec<String> {
            let name = |path: &Path| super::super::super::file_name(path);
            expanded.passed_over.iter().map(|one| format!("{}: {}", name(&one.path), one.why)).collect()
        }

        #[test]
        fn links_in_a_circle_are_named_and_each_file_is_read_once() {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("root");
            fs::create_dir_all(root.join("inner/deep")).unwrap();
            fs::create_dir(dir.path().join("outside")).unwrap();
            for name in ["root/inner/a.txt", "root/inner/deep/b.txt", "outside/c.txt"] {
                fs::write(dir.path().join(name), "x").unwrap();
            }
            symlink("../..", root.join("inner/deep/up")).unwrap();
            symlink(".", root.join("self")).unwrap();
            // Links to what lies elsewhere are followed, to each place once.
            symlink("../outside", root.join("one")).unwrap();
            symlink("../outside", root.join("two")).unwrap();
            symlink("inner/a.txt", root.join("file")).unwrap();
            let expanded = expand(&[root], OnError::Fail).unwrap();
            assert_eq!(names(&expanded), ["file", "a.txt", "b.txt", "c.txt"]);
            let why = "a link to a folder that is read already";
            assert_eq!(left_out(&expanded), ["up", "self", "two"].map(|name| format!("{name}: {why}")));
        }

        #[test]
        fn what_leads_nowhere_is_named_and_left_out() {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("a.txt"), "x").unwrap();
            symlink("nowhere", dir.path().join("loose")).unwrap();
            symlink("circle", dir.path().join("circle")).unwrap();
            for on_error in [OnError::Fail, OnError::Skip] {
                let expanded = expand(&[dir.path().to_owned()], on_error).unwrap();
                assert_eq!(names(&expanded), ["a.txt"]);
                let why = "a link that leads nowhere";
                assert_eq!(left_out(&expanded), ["circle", "loose"].map(|name| format!("{name}: {why}")));
            }
            // Asked for by name, it is an error whatever is to be skipped.
            let error = expand(&[dir.path().join("loose")], OnError::Skip).unwrap_err();
            assert!(error.to_string().contains("loose"), "{error}");
        }

        #[test]
        fn what_is_no_file_is_not_waited_for() {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("a.txt"), "x").unwrap();
            let _listener = UnixListener::bind(dir.path().join("socket")).unwrap();
            symlink("/dev/zero", dir.path().join("zeros")).unwrap();
            let expanded = expand(&[dir.path().to_owned()], OnError::Fail).unwrap();
            assert_eq!(names(&expanded), ["a.txt"]);
            assert_eq!(left_out(&expanded), ["socket: no ordinary file", "zeros: no ordinary file"]);
        }
    }
}
