from zoo.training.compiled.jit import cached, digest_of_sources


def test_functions_are_compiled_where_no_folder_can_keep_them():
    names = {}
    exec("def double(x):\n    return 2 * x", names)  # Numba finds no file, and so no folder, for this function
    assert cached(names["double"])(3) == 6


def test_the_digest_changes_with_any_file_of_the_package(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / f"{name}.py").write_text(name)
    monkeypatch.setattr("zoo.training.compiled.jit.__file__", str(tmp_path / "a.py"))
    before = digest_of_sources()
    assert digest_of_sources() == before
    (tmp_path / "b.py").write_text("c")
    assert digest_of_sources() != before
