using System.IO.Compression;

namespace Ublkback.Images.Qcow2;

/// <summary>Unpacks clusters (qcow2 specification, "Compressed Clusters Descriptor"): a deflate stream without a head.</summary>
internal static class CompressedCluster
{
    /// <summary>Fills a cluster; false when the stream is broken or too short. Takes long, so runs on a helper thread.</summary>
    public static bool TryUnpack(ReadOnlyMemory<byte> packed, Memory<byte> cluster)
    {
        try
        {
            using MemoryStream bytes = new(packed.ToArray());
            using DeflateStream unpacked = new(bytes, CompressionMode.Decompress);
            unpacked.ReadExactly(cluster.Span);
            return true;
        }
        catch (Exception failure) when (failure is InvalidDataException or EndOfStreamException)
        {
            return false;
        }
    }
}
