"""SenseVoiceSmall: SAN-M encoder and CTC head, which also detect language, emotion and sounds."""
