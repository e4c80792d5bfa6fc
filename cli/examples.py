"""Three examples for every command, shown at the end of its help; a test reads each with the command's own parser."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "dlkit": (
        "dlkit train photos/",
        "dlkit eval --topk 5",
        "dlkit predict photos/ --format jsonl",
    ),
    "train": (
        "dlkit train photos/",
        "dlkit train lenet5 mnist",
        "dlkit train --recipe resnet20-cifar10 --set optimizer.lr=0.05 --name slower",
    ),
    "eval": (
        "dlkit eval",
        "dlkit eval resnet18-photos --split validation --topk 3",
        "dlkit eval --fail-under top1=0.9 --json",
    ),
    "calibrate": (
        "dlkit calibrate",
        "dlkit calibrate --coverage 0.9 --max-error 0.02 --unfamiliar 0.05",
        "dlkit calibrate resnet18-photos --method none --coverage 0.95 --sets aps --json",
    ),
    "predict": (
        "dlkit predict cat.jpg",
        "dlkit predict photos/ --run resnet18-photos --topk 1 --format csv",
        "find . -name '*.jpg' -print0 | dlkit predict -0 - --format jsonl",
    ),
    "export": (
        "dlkit export --to onnx -o digits.onnx",
        "dlkit export resnet18-photos --to onnx --quantize int8 -o small.onnx",
        "dlkit export --to torch_export -o model.pt2",
    ),
    "explain": (
        "dlkit explain cat.jpg",
        "dlkit explain cat.jpg --method integrated_gradients --target dog -o why.png",
        "dlkit explain photos/ --method all --montage -o all.png",
    ),
    "report": (
        "dlkit report --open",
        "dlkit report resnet18-photos -o report.html",
        "dlkit report first second third -o compared.html",
    ),
    "serve": (
        "dlkit serve",
        "dlkit serve resnet18-photos --port 8080",
        "dlkit serve model.onnx --host 0.0.0.0",
    ),
    "lr-find": (
        "dlkit lr-find lenet5 mnist",
        "dlkit lr-find resnet18 photos/ --pretrained -o rates.png",
        "dlkit lr-find --recipe resnet20-cifar10 --json",
    ),
    "reproduce": (
        "dlkit reproduce",
        "dlkit reproduce resnet18-photos --epochs 1",
        "dlkit reproduce runs/first --name again",
    ),
    "ablate": (
        "dlkit ablate --recipe resnet20-cifar10 --dry-run",
        "dlkit ablate simple_cnn shapes --mixup 0.2 --seeds 3",
        "dlkit ablate --recipe resnet20-cifar10 --drop augment --drop weight_decay",
    ),
    "sweep": (
        "dlkit sweep lenet5-mnist --param optimizer.lr=log:1e-4..1e-1 --trials 20",
        "dlkit sweep simple_cnn shapes --param train.batch_size=32,64,128 --sampler grid",
        "dlkit sweep lenet5-mnist --param optimizer.name=sgd,adam --dry-run",
    ),
    "plot": (
        "dlkit plot",
        "dlkit plot first second --metric val/top1 -o compared.pdf",
        "dlkit plot resnet18-photos -o curves.svg",
    ),
    "baseline": (
        "dlkit baseline svm --dataset mnist --limit 5000",
        "dlkit baseline knn --dataset photos/",
        "dlkit baseline logistic --dataset shapes --json",
    ),
    "dataset": (
        "dlkit dataset list",
        "dlkit dataset download mnist",
        "dlkit dataset check photos/",
    ),
    "dataset list": (
        "dlkit dataset list",
        "dlkit dataset list --format csv",
        "dlkit dataset list --format json | jq -r '.[].name'",
    ),
    "dataset download": (
        "dlkit dataset download mnist",
        "dlkit dataset download cifar10 --from ~/copies/cifar-10-binary.tar.gz",
        "dlkit dataset download imagenette --quiet",
    ),
    "dataset bundle": (
        "dlkit dataset bundle mnist -o mnist.tar",
        "dlkit dataset bundle mnist fashion_mnist -o sets.tar",
        "dlkit dataset bundle cifar10 -o cifar10.tar --json",
    ),
    "dataset unbundle": (
        "dlkit dataset unbundle sets.tar",
        "dlkit dataset unbundle /media/stick/sets.tar",
        "dlkit dataset unbundle sets.tar --json",
    ),
    "dataset info": (
        "dlkit dataset info mnist",
        "dlkit dataset info photos/ -o photos.png",
        "dlkit dataset info cifar10 -o cifar10.png --augment resnet20-cifar10",
    ),
    "dataset check": (
        "dlkit dataset check photos/",
        "dlkit dataset check mnist --json",
        "dlkit dataset check photos/ --fix-list drop -0",
    ),
    "dataset pack": (
        "dlkit dataset pack photos/ -o photos.pack",
        "dlkit dataset pack photos/ -o photos.pack --size 64",
        "dlkit dataset pack --dataset imagenette -o imagenette.pack",
    ),
    "dataset unpack": (
        "dlkit dataset unpack mnist digits",
        "dlkit dataset unpack shapes shapes --split test --limit 100",
        "dlkit dataset unpack mnist digits --limit 20 | dlkit predict -",
    ),
    "dataset verify": (
        "dlkit dataset verify mnist",
        "dlkit dataset verify cifar10 --json",
        "dlkit dataset verify imagenette",
    ),
    "models": (
        "dlkit models list --pretrained",
        "dlkit models list 'torchvision/*'",
        "dlkit models show resnet18",
    ),
    "models list": (
        "dlkit models list --task text",
        "dlkit models list 'torchvision/*net*' --pretrained",
        "dlkit models list --format json | jq -r '.[].name'",
    ),
    "models show": (
        "dlkit models show lenet5",
        "dlkit models show torchvision/swin_t",
        "dlkit models show lenet5 --dataset cifar10 --option activation=tanh",
    ),
    "recipes": (
        "dlkit recipes list",
        "dlkit recipes show lenet5-mnist",
        "dlkit recipes regularizers",
    ),
    "recipes list": (
        "dlkit recipes list",
        "dlkit recipes list --format csv",
        "dlkit recipes list --format json | jq -r '.[].name'",
    ),
    "recipes show": (
        "dlkit recipes show lenet5-mnist",
        "dlkit recipes show resnet20-cifar10 > mine.yaml",
        "dlkit recipes show lstm-sst",
    ),
    "recipes regularizers": (
        "dlkit recipes regularizers",
        "dlkit recipes regularizers --json",
        "dlkit recipes regularizers --format csv",
    ),
    "recipes keys": (
        "dlkit recipes keys",
        "dlkit recipes keys schedule",
        "dlkit recipes keys augment --json",
    ),
    "runs": (
        "dlkit runs list",
        "dlkit runs show latest",
        "dlkit runs compare first second",
    ),
    "runs list": (
        "dlkit runs list",
        "dlkit runs list --sort best --reverse",
        "dlkit runs list --json | jq -r '.[].name'",
    ),
    "runs tag": (
        "dlkit runs tag latest --add good",
        "dlkit runs tag first second --add paper --add figure-2",
        "dlkit runs tag first --remove paper",
    ),
    "runs show": (
        "dlkit runs show",
        "dlkit runs show resnet18-photos",
        "dlkit runs show latest --json",
    ),
    "runs compare": (
        "dlkit runs compare first second",
        "dlkit runs compare augmented --against plain",
        "dlkit runs compare augmented --against plain --fail-on-regression",
    ),
    "runs rm": (
        "dlkit runs rm first",
        "dlkit runs rm first second --dry-run",
        "dlkit runs rm first --force",
    ),
    "runs prune": (
        "dlkit runs prune --dry-run",
        "dlkit runs prune",
        "dlkit runs prune --runs-dir archive",
    ),
}
