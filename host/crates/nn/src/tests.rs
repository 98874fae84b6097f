//! All versions of wasi:nn over a scripted device, called as the generated code calls them.

mod bench;
mod flight;
mod newest;
mod older;
mod witx;
