"""PyTorch's transfer-learning tutorial on one folder of photos, and the plain loop that classifies a folder.

    python torch_tutorial.py {whole,predict} DATA --epochs N [--out FILE]

DATA is a folder of class folders. `whole` trains every layer of MobileNetV2 in each epoch, as the tutorial does
(batches of 32, where the tutorial, with far fewer photos, takes 4). The architecture alone is used, without published
weights: time does not depend on them.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn, optim
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, models, transforms

BATCH = 32
WORKERS = 4
SEED = 123
NORMALIZE = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
TRAIN = transforms.Compose(
    [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.ToTensor(), NORMALIZE]
)
VAL = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), NORMALIZE])
VERSIONS = {"torch": torch.__version__, "torchvision": torchvision.__version__}
DEVICE = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def say(event: str, **values: Any) -> None:
    print(json.dumps({"event": event, **values}), flush=True)


def new_model(classes: int) -> nn.Module:
    model = models.mobilenet_v2(weights=None)
    model.classifier[1] = nn.Linear(model.last_channel, classes)
    return model.to(DEVICE)


def train_model(model: nn.Module, loaders: dict[str, Any], epochs: int, out: Path) -> float:
    """The tutorial's loop: train and validate in each epoch, keep the best weights. Returns their accuracy."""
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
    scheduler = lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    best = 0.0
    torch.save(model.state_dict(), out)
    for epoch in range(epochs):
        for phase in ("train", "val"):
            model.train(phase == "train")
            right = count = 0
            for inputs, labels in loaders[phase]:
                inputs, labels = inputs.to(DEVICE), labels.to(DEVICE)
                optimizer.zero_grad()
                with torch.set_grad_enabled(phase == "train"):
                    outputs = model(inputs)
                    loss = criterion(outputs, labels)
                    if phase == "train":
                        loss.backward()
                        optimizer.step()
                right += int((outputs.argmax(1) == labels).sum())
                count += len(labels)
            if phase == "train":
                scheduler.step()
            elif right / count > best:
                best = right / count
                torch.save(model.state_dict(), out)
        say("epoch", model="whole", epoch=epoch + 1)
    model.load_state_dict(torch.load(out, weights_only=True))
    return best


def whole(data: str, epochs: int, out: Path) -> None:
    training, validation = datasets.ImageFolder(data, TRAIN), datasets.ImageFolder(data, VAL)
    order = torch.randperm(len(training), generator=torch.Generator().manual_seed(SEED)).tolist()
    held = len(order) // 5
    parts = {"train": Subset(training, order[held:]), "val": Subset(validation, order[:held])}
    loaders = {name: DataLoader(part, BATCH, shuffle=True, num_workers=WORKERS) for name, part in parts.items()}
    model = new_model(len(training.classes))
    say("ready", model="whole")
    accuracy = train_model(model, loaders, epochs, out)
    counts = {"trained": len(parts["train"]), "validated": len(parts["val"])}
    parameters = sum(p.numel() for p in model.parameters())
    say("end", photos=counts, models={"whole": {"parameters": parameters, "accuracy": accuracy}}, versions=VERSIONS)


def predict(data: str, out: Path) -> None:
    photos = datasets.ImageFolder(data, VAL)
    loader = DataLoader(photos, BATCH, num_workers=WORKERS)
    model = new_model(len(photos.classes)).eval()
    say("ready", model="predict")
    done = 0
    with out.open("w", newline="", encoding="utf-8") as file, torch.inference_mode():
        writer = csv.writer(file)
        writer.writerow(["path", "predicted", *photos.classes])
        for inputs, _labels in loader:
            shares = model(inputs.to(DEVICE)).softmax(1).cpu()
            for row in shares:
                path, predicted = photos.samples[done][0], photos.classes[int(row.argmax())]
                writer.writerow([path, predicted, *(f"{share:.6f}" for share in row.tolist())])
                done += 1
    say("end", photos={"classified": done}, versions=VERSIONS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=["whole", "predict"])
    parser.add_argument("data")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", type=Path, help="file for the model, or the CSV")
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    folder = Path(tempfile.mkdtemp())
    if arguments.job == "whole":
        whole(arguments.data, arguments.epochs, arguments.out or folder / "model.pt")
    else:
        predict(arguments.data, arguments.out or folder / "predictions.csv")


if __name__ == "__main__":
    main()
