"""What the generations of the earlier application wrote into config.json, as the contract describes them."""

from __future__ import annotations

from typing import Any

BASIC: dict[str, Any] = {
    "system": {"default_quantization": "bf16", "enable_offload": True},
    "directories": {"output_directory": "outputs", "models_directory": "models", "loras_directory": "loras"},
    "models": {"t2v_model": "t2v-A14B", "i2v_model": "i2v-A14B", "ti2v_model": "ti2v-5B"},
    "optimization": {"default_quantization": "fp16", "enable_offload": True, "max_vram_usage_gb": 12},
}
GRADIO: dict[str, Any] = {
    "system": {**BASIC["system"], "vae_tile_size": 320, "max_queue_size": 10, "stats_refresh_interval": 5},
    "directories": BASIC["directories"],
    "generation": {
        "default_resolution": "832x480",
        "default_steps": 30,
        "default_duration": 4,
        "default_fps": 24,
        "max_prompt_length": 500,
        "supported_resolutions": ["854x480", "1280x720"],
    },
    "models": {"t2v_model": "Wan2.2-T2V-A14B", "i2v_model": "Wan2.2-I2V-A14B", "ti2v_model": "Wan2.2-TI2V-5B"},
    "optimization": {
        "default_quantization": "int8",
        "quantization_levels": ["fp16", "bf16", "int8"],
        "vae_tile_size_range": [128, 512],
        "max_vram_usage_gb": 12,
        "enable_offload": False,
    },
    "ui": {"max_file_size_mb": 10, "gallery_thumbnail_size": 256},
    "performance": {
        "target_720p_time_minutes": 9,
        "vram_warning_threshold": 0.85,
        "cpu_warning_percent": 95,
        "memory_warning_percent": 80,
        "vram_warning_percent": 90,
    },
    "prompt_enhancement": {"enable_basic_quality": True, "max_quality_keywords": 3},
}
SERVER: dict[str, Any] = {
    "generation": {
        "mode": "real",
        "enable_real_models": True,
        "fallback_to_mock": False,
        "auto_download_models": False,
        "max_concurrent_generations": 1,
        "generation_timeout_minutes": 45,
        "enable_progress_tracking": True,
    },
    "models": {"base_path": "models", "quantization_level": "bf16", "preload_models": False},
    "hardware": {"vram_limit_gb": 14, "cpu_threads": 8, "enable_xformers": True},
    "optimization": {"max_vram_usage_gb": 14, "vae_tile_size": 512, "quantization_level": "bf16"},
    "websocket": {"update_interval_seconds": 0.5},
    "api": {"host": "0.0.0.0", "port": 8000, "cors_origins": ["http://localhost:3000"], "max_request_size": "100MB"},
    "database": {"url": "postgresql://wan:hunter2@db/wan"},
    "logging": {"level": "INFO", "file": "logs/backend.log", "max_file_size": "50MB", "backup_count": 5},
    "security": {"secret_key": "hunter2"},
}
MODELS_TOML = """schema_version = 1\r
[models."t2v-A14B@2.2.0"]\r
variants = ["fp16", "bf16"]\r
[models."t2v-A14B@2.2.0".defaults]\r
fps = 24\r
frames = 81\r
scheduler = "ddim"\r
precision = "fp16"\r
guidance_scale = 7.5\r
num_inference_steps = 50\r
[models."t2v-A14B@2.2.0".vram_estimation]\r
base_vram_gb = 12.0\r
[[models."t2v-A14B@2.2.0".files]]\r
path = "Wan2.1_VAE.pth"\r
[models."t2v-A14B@2.2.0".sources]\r
priority = ["hf://Wan-AI/Wan2.2-T2V-A14B"]\r
"""
