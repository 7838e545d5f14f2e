"""Counts the people in every frame of a video, without writing any file."""

from pathlib import Path

from rtdetrv2_cli import Detector, open_source

VIDEO = Path(__file__).parent / "media" / "walkers.mp4"


def main(frames: int = 20) -> None:
    """Prints the time and the number of people of the first `frames` frames."""
    detector = Detector(classes="person")
    for result in detector.stream(open_source(VIDEO, max_frames=frames)):
        print(f"{result.frame.seconds:6.2f} s  {len(result.detections)} people")


if __name__ == "__main__":
    main()
