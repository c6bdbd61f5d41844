namespace Ublkback.Images.Qcow2.Format;

/// <summary>How compressed clusters of an image are packed (qcow2 specification, "compression_type").</summary>
internal enum CompressionType : byte
{
    /// <summary>A deflate stream without a head.</summary>
    Deflate = 0,

    /// <summary>A zstd stream.</summary>
    Zstd = 1,
}
