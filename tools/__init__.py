"""Tools beside the server: the demo, the bench, the conformance runner. None of them is part of the wheel."""
