//! Guests of a few hand-assembled bytes, each in an ELF file of its own.

use std::path::Path;

/// Writes the first eight bytes at RDI to the console, then 0 to the exit port.
pub(crate) const HELLO: &[u8] = &[
    0x48, 0x89, 0xfe, // mov rsi, rdi
    0xb9, 8, 0, 0, 0, // mov ecx, 8
    0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xac, // lodsb
    0xee, // out dx, al
    0xe2, 0xfc, // loop
    0x31, 0xc0, // xor eax, eax
    0xe6, 0xf4, // out 0xf4, al
    0xf4, // hlt
];
/// An undefined instruction without an interrupt table.
pub(crate) const TRIPLE_FAULT: &[u8] = &[0x0f, 0x0b];
/// Sleeps for good.
pub(crate) const SLEEP: &[u8] = &[0xfa, 0xf4, 0xeb, 0xfd];
/// Kicks queue 1 for good.
pub(crate) const KICK_LOOP: &[u8] = &[
    0xbb, 0x50, 0, 0, 0xd0, // mov ebx, 0xd0000050
    0xb8, 1, 0, 0, 0, // mov eax, 1
    0x89, 0x03, // mov [rbx], eax
    0xeb, 0xfc, // jmp
];
/// Acknowledges the device without any agreement: `DRIVER_OK` at once.
pub(crate) const PREMATURE: &[u8] = &[
    0xbb, 0x70, 0, 0, 0xd0, // mov ebx, 0xd0000070
    0xb8, 4, 0, 0, 0, // mov eax, 4
    0x89, 0x03, // mov [rbx], eax
    0xf4, // hlt
];

/// An ELF64 file with one segment at 1 MiB.
pub(crate) fn elf(code: &[u8]) -> Vec<u8> {
    let address = 0x10_0000_u64;
    let bytes = u64::try_from(code.len()).expect("small");
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    file.extend(address.to_le_bytes());
    file.extend(64_u64.to_le_bytes());
    file.extend([0; 12]);
    for field in [64_u16, 56, 1, 64, 0, 0] {
        file.extend(field.to_le_bytes());
    }
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for field in [120, address, address, bytes, bytes, 0x1000] {
        file.extend(field.to_le_bytes());
    }
    file.extend(code);
    file
}

/// Whether guests can be booted here; when not, says so.
pub(crate) fn has_kvm() -> bool {
    let there = Path::new("/dev/kvm").exists() && Path::new("/dev/net/tun").exists();
    let required = std::env::var("WEFT_TESTS_REQUIRE").is_ok_and(|list| list.split(',').any(|word| word == "kvm"));
    assert!(there || !required, "WEFT_TESTS_REQUIRE names kvm, and it is not here");
    if !there {
        eprintln!("skipped: no /dev/kvm or no /dev/net/tun");
    }
    there
}
