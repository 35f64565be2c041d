//! The file: its boundaries, and what happens when somebody else touches it.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use super::super::rotation::RotatingFile;
use crate::config::LogConfig;

/// A log of ten bytes.
fn ten(dir: &tempfile::TempDir, files: u32) -> LogConfig {
    LogConfig { path: dir.path().join("log"), max_bytes: 10, files }
}

/// Appends, which must do.
fn append(file: &mut RotatingFile, text: &str) {
    let appended = file.append(text.as_bytes());
    assert!(appended.error.is_none(), "{appended:?}");
    assert_eq!(appended.lines, text.matches('\n').count() as u64);
}

/// What is in the files, the one that is written first.
fn contents(config: &LogConfig) -> Vec<String> {
    let numbered = (1..20).map(|number| PathBuf::from(format!("{}.{number}", config.path.display())));
    let paths = std::iter::once(config.path.clone()).chain(numbered);
    paths.filter_map(|path| fs::read_to_string(path).ok()).collect()
}

#[test]
fn a_file_is_filled_to_its_last_byte_and_not_beyond() {
    let dir = tempfile::tempdir().unwrap();
    let config = ten(&dir, 3);
    let mut file = RotatingFile::open(&config).unwrap();
    append(&mut file, "aaaa\nbbbb\n");
    assert_eq!(contents(&config), ["aaaa\nbbbb\n"]);
    append(&mut file, "c\n");
    assert_eq!(contents(&config), ["c\n", "aaaa\nbbbb\n"]);
    // Nine bytes: the next line would be the eleventh byte's.
    append(&mut file, "dddddd\n");
    append(&mut file, "e\n");
    assert_eq!(contents(&config), ["e\n", "c\ndddddd\n", "aaaa\nbbbb\n"]);
}

#[test]
fn one_batch_may_fill_several_files_and_the_oldest_go() {
    let dir = tempfile::tempdir().unwrap();
    let config = ten(&dir, 2);
    let mut file = RotatingFile::open(&config).unwrap();
    append(&mut file, "1111\n2222\n3333\n4444\n5555\n6666\n7777\n8888\n9999\n");
    assert_eq!(contents(&config), ["9999\n", "7777\n8888\n", "5555\n6666\n"]);
}

#[test]
fn a_line_that_fits_no_file_has_one_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let config = ten(&dir, 3);
    let mut file = RotatingFile::open(&config).unwrap();
    append(&mut file, "a\nlonger than ten bytes\nb\n");
    assert_eq!(contents(&config), ["b\n", "longer than ten bytes\n", "a\n"]);
}

#[test]
fn a_gap_that_a_crash_left_is_filled_and_nothing_older_lost() {
    let dir = tempfile::tempdir().unwrap();
    let config = ten(&dir, 4);
    for (number, text) in [(1, "one\n"), (3, "three\n"), (4, "four\n")] {
        fs::write(format!("{}.{number}", config.path.display()), text).unwrap();
    }
    let mut file = RotatingFile::open(&config).unwrap();
    append(&mut file, "zero zero\nnew\n");
    assert_eq!(contents(&config), ["new\n", "zero zero\n", "one\n", "three\n", "four\n"]);
}

#[test]
fn a_restart_appends_and_ends_the_line_that_was_half_written() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig { max_bytes: 1000, ..ten(&dir, 3) };
    append(&mut RotatingFile::open(&config).unwrap(), "a\n");
    append(&mut RotatingFile::open(&config).unwrap(), "b\n");
    OpenOptions::new().append(true).open(&config.path).unwrap().write_all(b"{\"half\":").unwrap();
    append(&mut RotatingFile::open(&config).unwrap(), "c\n");
    assert_eq!(contents(&config), ["a\nb\n{\"half\":\nc\n"]);
}

#[test]
fn a_file_that_is_removed_moved_or_emptied_underneath_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let config = ten(&dir, 3);
    let mut file = RotatingFile::open(&config).unwrap();
    append(&mut file, "a\n");
    fs::remove_file(&config.path).unwrap();
    append(&mut file, "b\n");
    assert_eq!(contents(&config), ["b\n"]);
    fs::rename(&config.path, dir.path().join("elsewhere")).unwrap();
    append(&mut file, "c\n");
    assert_eq!(contents(&config), ["c\n"]);
    append(&mut file, "dddddd\n");
    File::options().write(true).open(&config.path).unwrap().set_len(0).unwrap();
    append(&mut file, "eeeeee\n");
    assert_eq!(contents(&config), ["eeeeee\n"], "what is full is what the file holds, not what was written");
}

#[test]
fn what_takes_the_files_place_is_an_error_until_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let config = LogConfig { path: dir.path().join("sub/log"), ..ten(&dir, 3) };
    fs::create_dir(dir.path().join("sub")).unwrap();
    let mut file = RotatingFile::open(&config).unwrap();
    append(&mut file, "a\n");
    let fails = |file: &mut RotatingFile| {
        let appended = file.append(b"lost\n");
        assert!(appended.lines == 0 && appended.error.is_some(), "{appended:?}");
    };
    fs::remove_dir_all(dir.path().join("sub")).unwrap();
    fails(&mut file);
    fails(&mut file);
    fs::create_dir_all(&config.path).unwrap();
    fails(&mut file);
    fs::remove_dir(&config.path).unwrap();
    append(&mut file, "b\n");
    // A rotation that cannot be keeps the file below its limit, and what is in it.
    fs::create_dir(dir.path().join("sub/log.1")).unwrap();
    append(&mut file, "1234567\n");
    let only = LogConfig { files: 1, ..config.clone() };
    drop(file);
    let mut file = RotatingFile::open(&only).unwrap();
    fails(&mut file);
    fs::remove_dir(dir.path().join("sub/log.1")).unwrap();
    append(&mut file, "c\n");
    assert_eq!(contents(&only), ["c\n", "b\n1234567\n"]);
}

#[test]
fn what_is_no_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = ten(&dir, 3);
    let refusal = || RotatingFile::open(&config).unwrap_err().to_string();
    fs::create_dir(&config.path).unwrap();
    assert!(refusal().contains("directory"), "{}", refusal());
    fs::remove_dir(&config.path).unwrap();
    symlink("/dev/null", &config.path).unwrap();
    assert!(refusal().contains("symbolic link"), "{}", refusal());
    fs::remove_file(&config.path).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &config.path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(refusal().contains("not a regular file"), "{}", refusal());
    fs::remove_file(&config.path).unwrap();
    let _first = RotatingFile::open(&config).unwrap();
    assert!(refusal().contains("another process writes it"), "{}", refusal());
}

#[test]
fn a_new_file_may_be_read_by_its_group_and_one_that_is_there_keeps_its_mode() {
    let dir = tempfile::tempdir().unwrap();
    let config = ten(&dir, 3);
    let mode = || fs::metadata(&config.path).unwrap().permissions().mode() & 0o7777;
    let mut file = RotatingFile::open(&config).unwrap();
    assert_eq!(mode(), 0o640);
    fs::set_permissions(&config.path, fs::Permissions::from_mode(0o600)).unwrap();
    append(&mut file, "a\n");
    assert_eq!(mode(), 0o600);
    append(&mut file, "new file\n");
    assert_eq!(mode(), 0o640);
}
