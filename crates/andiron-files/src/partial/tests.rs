use super::*;
use crate::fault::{Fault, with_fault};
use crate::write_synced;

/// The entries of a directory, including hidden ones, each file with its content.
fn tree(root: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for name in list(root).unwrap() {
        let path = root.join(&name);
        match path.is_dir() {
            true => found
                .extend(tree(&path).into_iter().map(|(below, content)| (format!("{name}/{below}"), content))),
            false => found.push((name, fs::read_to_string(path).unwrap())),
        }
    }
    found
}

fn files(found: &[(&str, &str)]) -> Vec<(String, String)> {
    found.iter().map(|(name, content)| ((*name).to_owned(), (*content).to_owned())).collect()
}

fn build(target: &Path, content: &str) -> io::Result<()> {
    let building = PartialDirectory::begin(target)?;
    for name in ["a", "b"] {
        write_synced(&building.path().join(name), content.as_bytes())?;
    }
    building.publish()
}

#[test]
fn a_directory_appears_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("out");
    let building = PartialDirectory::begin(&target).unwrap();
    write_synced(&building.path().join("a"), b"1").unwrap();
    assert_eq!(PartialDirectory::begin(&target).err().unwrap().kind(), io::ErrorKind::ResourceBusy);
    drop(building);
    assert_eq!(tree(dir.path()), []);
    for content in ["1", "2"] {
        build(&target, content).unwrap();
        assert_eq!(tree(dir.path()), files(&[("out/a", content), ("out/b", content)]));
    }
}

#[test]
fn leftovers_of_a_dead_process_are_cleared() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("out");
    fs::create_dir_all(dir.path().join(".out.partial/sub")).unwrap();
    fs::write(dir.path().join(".out.partial/stale"), b"").unwrap();
    build(&target, "1").unwrap();
    assert_eq!(tree(dir.path()), files(&[("out/a", "1"), ("out/b", "1")]));
}

#[test]
fn killed_anywhere_a_directory_is_the_old_one_or_the_new_one_and_the_next_run_is_whole() {
    for before in [None, Some("old")] {
        let prepared = || {
            let dir = tempfile::tempdir().unwrap();
            let target = dir.path().join("out");
            if let Some(content) = before {
                build(&target, content).unwrap();
            }
            (dir, target)
        };
        let (_dir, target) = prepared();
        let (result, seen) = with_fault(Fault::none(), || build(&target, "new"));
        result.unwrap();
        assert!(seen.len() > 15, "{seen:?}");
        for (at, operation) in seen.iter().enumerate() {
            let (dir, target) = prepared();
            let (result, _) = with_fault(Fault::killed_at(at), || build(&target, "new"));
            assert!(result.is_err(), "{:?}", operation);
            // Between two renamings nothing stands there; the old one is beside it.
            let place =
                if target.exists() || before.is_none() { target.clone() } else { sibling(&target, "old") };
            let found = ["a", "b"].map(|name| fs::read_to_string(place.join(name)).ok());
            assert!(
                [before, Some("new")]
                    .map(|content| [content; 2].map(|text| text.map(str::to_owned)))
                    .contains(&found),
                "{:?}: {found:?}",
                operation
            );
            // The next run gets the old one back first, and then replaces it.
            let building = PartialDirectory::begin(&target).unwrap();
            let found = fs::read_to_string(target.join("a")).ok();
            assert!(
                found.as_deref() == before || found.as_deref() == Some("new"),
                "{:?}: {found:?}",
                operation
            );
            drop(building);
            build(&target, "new").unwrap();
            assert_eq!(tree(dir.path()), files(&[("out/a", "new"), ("out/b", "new")]), "{:?}", operation);
        }
    }
}

#[test]
fn a_directory_that_fails_anywhere_leaves_the_old_one_and_nothing_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("out");
    build(&target, "old").unwrap();
    let (_, seen) = with_fault(Fault::none(), || build(&dir.path().join("other"), "new"));
    remove_directory(&dir.path().join("other")).unwrap();
    for (at, seen) in seen.iter().enumerate() {
        let (result, _) = with_fault(Fault::once(at, 28), || build(&target, "new"));
        assert!(result.is_err(), "{seen:?}");
        let published = tree(dir.path()).contains(&("out/a".to_owned(), "new".to_owned()));
        let content = if published { "new" } else { "old" };
        if !published && seen.operation != Operation::Remove {
            assert_eq!(tree(dir.path()), files(&[("out/a", content), ("out/b", content)]), "{seen:?}");
        }
        build(&target, "old").unwrap();
    }
}

#[test]
fn files_move_into_a_directory_that_holds_others() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("out");
    for content in ["1", "2"] {
        let building = PartialDirectory::begin(&target).unwrap();
        write_synced(&building.path().join("a"), content.as_bytes()).unwrap();
        building.publish_into().unwrap();
        assert!(tree(&target).contains(&("a".to_owned(), content.to_owned())));
        fs::write(target.join("notes"), "mine").unwrap();
    }
    assert_eq!(tree(dir.path()), files(&[("out/a", "2"), ("out/notes", "mine")]));
}

#[test]
fn a_file_appears_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("rows.jsonl");
    let write = |content: &str| -> io::Result<()> {
        let mut file = PartialFile::begin(&target)?;
        file.write_all(content.as_bytes())?;
        file.publish()
    };
    let (result, seen) = with_fault(Fault::none(), || write("old"));
    result.unwrap();
    for (at, operation) in seen.iter().enumerate() {
        fs::write(&target, "old").unwrap();
        let (result, _) = with_fault(Fault::killed_at(at), || write("new"));
        assert!(result.is_err());
        let expected = if at + 1 == seen.len() { "new" } else { "old" };
        assert_eq!(fs::read_to_string(&target).unwrap(), expected, "{:?}", operation);
        write("new").unwrap();
        assert_eq!(tree(dir.path()), files(&[("rows.jsonl", "new")]));
    }
    let open = PartialFile::begin(&target).unwrap();
    assert_eq!(PartialFile::begin(&target).err().unwrap().kind(), io::ErrorKind::ResourceBusy);
    drop(open);
    assert_eq!(tree(dir.path()), files(&[("rows.jsonl", "new")]));
}

#[cfg(unix)]
#[test]
fn a_device_is_written_to_and_a_link_is_followed() {
    let mut file = PartialFile::begin(Path::new("/dev/null")).unwrap();
    file.write_all(b"x").unwrap();
    file.publish().unwrap();
    assert!(!fs::metadata("/dev/null").unwrap().is_file());

    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("elsewhere")).unwrap();
    fs::write(dir.path().join("elsewhere/file"), "old").unwrap();
    for (link, to) in
        [("file", "elsewhere/file"), ("folder", "elsewhere"), ("circle", "circle"), ("loose", "none")]
    {
        std::os::unix::fs::symlink(to, dir.path().join(link)).unwrap();
    }
    let mut file = PartialFile::begin(&dir.path().join("file")).unwrap();
    file.write_all(b"new").unwrap();
    file.publish().unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("elsewhere/file")).unwrap(), "new");
    build(&dir.path().join("folder"), "1").unwrap();
    assert_eq!(tree(&dir.path().join("elsewhere")), files(&[("a", "1"), ("b", "1")]));
    assert!(fs::symlink_metadata(dir.path().join("folder")).unwrap().is_symlink());
    for name in ["circle", "loose"] {
        assert!(PartialFile::begin(&dir.path().join(name)).is_err());
        assert!(PartialDirectory::begin(&dir.path().join(name)).is_err());
    }
}
