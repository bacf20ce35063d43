//! Launches that are given to the driver as graphs: the same bytes, fewer calls, and none where a graph cannot be made.

use std::path::PathBuf;

use zkinfer_kernels::CudaBackend;
use zkinfer_kernels::cuda::{DeviceOptions, GraphPolicy};

use crate::rounds::rounds;
use crate::{NO_LIMIT, emulated, expected, failing_allocation, open};

fn total(backend: &CudaBackend) -> u64 {
    backend.launches().values().sum()
}

#[test]
fn graphs_change_no_byte_and_save_calls_of_the_driver() {
    emulated(&[("EMUCUDA_LAZY", "1")], || {
        let expected = expected();
        let without =
            CudaBackend::open_with(0, NO_LIMIT, DeviceOptions { graphs: GraphPolicy::Never, ..DeviceOptions::default() }).unwrap();
        let with = CudaBackend::open(0, NO_LIMIT).unwrap();
        // Tables are made between launches, then sequences are remembered, then graphs are made.
        for _ in 0..3 {
            assert!(rounds(&without).unwrap() == expected && rounds(&with).unwrap() == expected);
        }
        // The fourth time, and all later ones, are alike.
        let (launched, before) = (total(&with), with.graph_use());
        assert!(rounds(&with).unwrap() == expected);
        let (launched, now) = (total(&with) - launched, with.graph_use());
        assert_eq!((now.n_made, now.n_refused), (before.n_made, 0), "{now:?}");
        let (graphs, gathered) = (now.n_graphs - before.n_graphs, now.n_launches - before.n_launches);
        let (plain, changed) = (now.n_plain - before.n_plain, now.n_changed_launches - before.n_changed_launches);
        println!("{launched} launches: {plain} alone, {gathered} in {graphs} graphs, {changed} changed");
        assert_eq!(plain + gathered, launched);
        // Buffers lie where they lay, so that only challenges change.
        assert!(now.n_unchanged > before.n_unchanged && 2 * (graphs + changed) < gathered);
        assert_eq!((without.graph_use().n_plain, without.graph_use().n_graphs), (total(&without), 0));
    });
}

#[test]
fn callers_share_graphs_whatever_the_order_of_their_streams() {
    emulated(&[("EMUCUDA_LAZY", "1"), ("EMUCUDA_SEED", "9")], || {
        let (backend, expected) = (open(0), expected());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..4).for_each(|_| assert!(rounds(&backend).unwrap() == expected)));
            }
        });
        println!("{:?}", backend.graph_use());
        assert!(backend.graph_use().n_graphs > 0);
    });
}

#[test]
fn graphs_that_cannot_be_made_are_launched_one_by_one() {
    let file = failing_allocation();
    std::fs::write(&file, "0").unwrap();
    emulated(&[("EMUCUDA_FAIL_ALLOC", file.to_str().unwrap())], || {
        let file = PathBuf::from(std::env::var("EMUCUDA_FAIL_ALLOC").unwrap());
        let (backend, expected) = (CudaBackend::open(0, NO_LIMIT).unwrap(), expected());
        rounds(&backend).unwrap();
        // Each step of making a graph fails in turn; buffers find room in the chunks that are there.
        for fails in ["1", "2", "3", "4", "-1"] {
            std::fs::write(&file, format!("{fails:<12}")).unwrap();
            let before = backend.graph_use();
            assert!(rounds(&backend).unwrap() == expected);
            assert!(backend.graph_use().n_refused > before.n_refused || fails != "-1");
        }
        assert!(backend.graph_use().n_refused > 4);
        std::fs::write(&file, "0").unwrap();
        let before = backend.graph_use();
        assert!(rounds(&backend).unwrap() == expected && rounds(&backend).unwrap() == expected);
        let now = backend.graph_use();
        assert!(now.n_graphs > before.n_graphs && now.n_refused == before.n_refused, "{now:?}");
    });
    let _ = std::fs::remove_file(&file);
}
