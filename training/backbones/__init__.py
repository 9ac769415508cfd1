"""Networks pretrained on ImageNet, without their last layer."""
