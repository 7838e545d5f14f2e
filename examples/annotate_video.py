"""Draws what is found in a video and records it, decoding, detecting and encoding at once."""

from pathlib import Path

from rtdetrv2_cli import Detector, open_sink, open_source, run

VIDEO = Path(__file__).parent / "media" / "walkers.mp4"


def main(output: Path = Path("detections")) -> None:
    """Writes `walkers.mp4` and `walkers.csv` into `output`."""
    detector = Detector()
    sinks = [
        open_sink(output / "walkers.mp4", labels=detector.labels),
        open_sink(output / "walkers.csv", labels=detector.labels),
    ]
    summary = run(open_source(VIDEO), detector, sinks)
    print(f"{summary.detections} objects in {summary.frames} frames, {summary.seconds:.1f} s")


if __name__ == "__main__":
    main()
