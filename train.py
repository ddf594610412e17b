"""The one command: `python train.py [group=option ...] [key=value ...]`; installed, it is called `mmtrain`."""

from mmtrain.cli.main import main

if __name__ == "__main__":
    main()
