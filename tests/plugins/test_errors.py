from yolact_plugins.errors import MissingDependencyError, ShapeError, YolactError


def test_every_error_is_a_yolact_error_that_ends_a_command_with_status_1() -> None:
    assert issubclass(ShapeError, YolactError)
    assert issubclass(MissingDependencyError, YolactError)
    assert YolactError.exit_status == ShapeError.exit_status == MissingDependencyError.exit_status == 1


def test_missing_dependency_names_the_package_the_purpose_and_the_command_that_helps() -> None:
    error = MissingDependencyError("opencv-python-headless", "Reading images", "video")
    assert str(error) == (
        'Reading images needs the package "opencv-python-headless", which is not installed: '
        'pip install "yolact-deploy[video]" (in a clone of the project: pip install ".[video]")'
    )
    assert (error.package, error.extra) == ("opencv-python-headless", "video")
