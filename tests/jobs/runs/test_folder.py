from jobs.runs.folder import RunFolder, list_run_folders


def test_names_on_disk_stay_since_an_older_training_may_be_continued(tmp_path):
    folder = RunFolder(tmp_path / "0123")
    paths = (folder.experiment, folder.checkpoints, folder.weights, folder.run, folder.events, folder.sample(5),
             folder.stop_request, folder.stage_lock, folder.writer_lock)  # fmt: skip
    assert [path.relative_to(folder.path).as_posix() for path in paths] == [
        "experiment.json", "checkpoints", "weights.safetensors", "run.json", "events.jsonl",
        "samples/step-00000005.png", "stop", "lock", "writer.lock",
    ]  # fmt: skip
    assert folder.records == (folder.events, folder.code, folder.run)
    assert folder.fetched_checkpoints == tmp_path / ".0123.fetched"


def test_folders_that_are_being_removed_or_fetched_are_not_listed(tmp_path):
    for name in ("one/b", "one/a", "one/.a.7.removed", "two/c"):
        (tmp_path / name).mkdir(parents=True)
    assert [folder.path.name for folder in list_run_folders(tmp_path)] == ["a", "b", "c"]
    assert [folder.path.name for folder in list_run_folders(tmp_path, "one")] == ["a", "b"]
