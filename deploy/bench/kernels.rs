//! What `fuel.sh` measures the engine's fuel with: four kernels, each a function that repeats its work `n` times and
//! returns a number that depends on all of it. Built for wasm32-unknown-unknown, without std.
#![no_std]

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}

static mut BUFFER: [u8; 1 << 20] = [0; 1 << 20];

fn buffer() -> &'static mut [u8] {
    // SAFETY: one thread, and each export takes it once.
    unsafe { &mut *core::ptr::addr_of_mut!(BUFFER) }
}

fn fill(bytes: &mut [u8]) {
    let mut x = 0x2545_f491_u32;
    for byte in bytes {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        *byte = x as u8;
    }
}

const K: [u32; 64] = {
    // The fractional parts of the cube roots of the first 64 primes (FIPS 180-4, section 4.2.2).
    [
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98,
        0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786,
        0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8,
        0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13,
        0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819,
        0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a,
        0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
        0xc67178f2,
    ]
};

/// SHA-256 of 64 KiB, `n` times, without the padding.
#[unsafe(no_mangle)]
pub extern "C" fn sha256(n: u32) -> u32 {
    let data = &mut buffer()[..64 << 10];
    fill(data);
    let mut h: [u32; 8] =
        [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19];
    for _ in 0..n {
        for block in data.chunks_exact(64) {
            let mut w = [0u32; 64];
            for (w, bytes) in w.iter_mut().zip(block.chunks_exact(4)) {
                *w = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
            for i in 16..64 {
                let s0 = w[i - 15].rotate_right(7) ^ w[i - 15].rotate_right(18) ^ (w[i - 15] >> 3);
                let s1 = w[i - 2].rotate_right(17) ^ w[i - 2].rotate_right(19) ^ (w[i - 2] >> 10);
                w[i] = w[i - 16].wrapping_add(s0).wrapping_add(w[i - 7]).wrapping_add(s1);
            }
            let mut v = h;
            for i in 0..64 {
                let s1 = v[4].rotate_right(6) ^ v[4].rotate_right(11) ^ v[4].rotate_right(25);
                let choice = (v[4] & v[5]) ^ (!v[4] & v[6]);
                let t1 = v[7].wrapping_add(s1).wrapping_add(choice).wrapping_add(K[i]).wrapping_add(w[i]);
                let s0 = v[0].rotate_right(2) ^ v[0].rotate_right(13) ^ v[0].rotate_right(22);
                let t2 = s0.wrapping_add((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
                v = [t1.wrapping_add(t2), v[0], v[1], v[2], v[3].wrapping_add(t1), v[4], v[5], v[6]];
            }
            for (h, v) in h.iter_mut().zip(v) {
                *h = h.wrapping_add(v);
            }
        }
    }
    h[0]
}

const TEXT: &[u8] = br#"{"id":17,"name":"a name \"in\" quotes","tags":["one","two","three"],"point":{"x":1.25e3,"y":-0.5},"ok":true,"none":null,"list":[1,2,3,4,5,6,7,8,9,10]}"#;

/// Reads a JSON text of 150 bytes a thousand times, `n` times over: the depth, strings, and numbers that it holds.
#[unsafe(no_mangle)]
pub extern "C" fn json(n: u32) -> u32 {
    let mut sum = 0u32;
    for round in 0..n.wrapping_mul(1000) {
        let (mut depth, mut at) = (0u32, 0);
        while at < TEXT.len() {
            match TEXT[at] {
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.wrapping_sub(1),
                b'"' => {
                    at += 1;
                    while TEXT[at] != b'"' {
                        at += if TEXT[at] == b'\\' { 2 } else { 1 };
                        sum = sum.wrapping_add(1);
                    }
                }
                b'-' | b'0'..=b'9' => {
                    let mut number = 0f64;
                    while matches!(TEXT[at], b'-' | b'+' | b'.' | b'e' | b'0'..=b'9') {
                        number = number * 10.0 + f64::from(TEXT[at] & 15);
                        at += 1;
                    }
                    sum = sum.wrapping_add(number as u32);
                    continue;
                }
                other => sum = sum.wrapping_add(u32::from(other)),
            }
            at += 1;
        }
        sum = sum.wrapping_add(depth ^ round);
    }
    sum
}

/// `memory.copy` of 512 KiB, a hundred times, `n` times over.
#[unsafe(no_mangle)]
pub extern "C" fn copy(n: u32) -> u32 {
    let (from, to) = buffer().split_at_mut(512 << 10);
    fill(&mut from[..64]);
    for round in 0..n.wrapping_mul(100) {
        from[(round & 63) as usize] = round as u8;
        to.copy_from_slice(from);
    }
    u32::from(to[7])
}

/// The product of two 128 x 128 matrices of f32, `n` times.
#[unsafe(no_mangle)]
pub extern "C" fn matmul(n: u32) -> u32 {
    const N: usize = 128;
    static mut MATRICES: [[f32; N * N]; 3] = [[0.0; N * N]; 3];
    // SAFETY: one thread.
    let [a, b, c] = unsafe { &mut *core::ptr::addr_of_mut!(MATRICES) };
    for (i, (a, b)) in a.iter_mut().zip(b.iter_mut()).enumerate() {
        (*a, *b) = ((i % 13) as f32, (i % 7) as f32);
    }
    for _ in 0..n {
        for row in 0..N {
            let out = &mut c[row * N..][..N];
            out.fill(0.0);
            for k in 0..N {
                let factor = a[row * N + k];
                for (out, b) in out.iter_mut().zip(&b[k * N..][..N]) {
                    *out += factor * b;
                }
            }
        }
        a[0] += c[N + 1] * 1e-9;
    }
    c[N + 1] as u32
}
