//! What it takes to read and compile a configuration of a thousand routes: what a reload costs beside the requests.

#![expect(
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a benchmark that can't be set up stops; it writes the file that it reads"
)]

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::Criterion;
use portcullis::control::configuration::{self, Surroundings};
use portcullis::snapshot::tls::bundled_roots;

const ROUTES: usize = 1_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("portcullis.toml");
    std::fs::write(&file, document()).expect("written");
    let roots = bundled_roots();
    criterion.bench_function("read 1000 routes", |bencher| {
        bencher.iter(|| black_box(configuration::read(&file)));
    });
    criterion.bench_function("read and compile 1000 routes", |bencher| {
        bencher.iter(|| {
            let mut read = configuration::read(&file);
            let surroundings = Surroundings { previous: None, roots: &roots, demo: None };
            black_box(read.compile(&surroundings)).expect("it compiles")
        });
    });
    criterion.final_summary();
}

fn document() -> String {
    let mut text =
        String::from("[[listener]]\naddress = \"127.0.0.1:0\"\n[upstream.api]\nendpoints = [\"http://127.0.0.1:1\"]\n");
    for route in 0..ROUTES {
        let _ = write!(
            text,
            "[[route]]\nname = \"r{route}\"\nmatch = \"host{}.example.com/area/{route}/*\"\nupstream = \"api\"\n\
             headers = {{ response = {{ set = {{ x-route = \"{{route}}\" }} }} }}\ntimeout = {{ request = \"20s\" }}\n",
            route % 50
        );
    }
    text
}
