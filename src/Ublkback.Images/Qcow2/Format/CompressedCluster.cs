using System.IO.Compression;
using ZstdSharp;
using ZstdSharp.Unsafe;

namespace Ublkback.Images.Qcow2.Format;

/// <summary>Unpacks clusters (qcow2 specification, "Compressed Clusters Descriptor").</summary>
internal static class CompressedCluster
{
    private const int MaxWindowBits = 23; // a broken stream may ask for memory; for the largest cluster 21 do

    /// <summary>
    /// Fills a cluster; false when the stream is broken or too short. Takes long, so runs on a helper thread.
    /// </summary>
    public static bool TryUnpack(ReadOnlyMemory<byte> packed, Memory<byte> cluster, CompressionType type)
    {
        try
        {
            using MemoryStream bytes = new(packed.ToArray());
            // without a head
            using Stream unpacked = type == CompressionType.Zstd
                ? Unzstd(bytes)
                : new DeflateStream(bytes, CompressionMode.Decompress);
            unpacked.ReadExactly(cluster.Span);
            return true;
        }
        catch (Exception failure) when (failure is InvalidDataException or EndOfStreamException or ZstdException)
        {
            return false;
        }
    }

    private static DecompressionStream Unzstd(Stream packed)
    {
        DecompressionStream unpacked = new(packed, leaveOpen: false);
        unpacked.SetParameter(ZSTD_dParameter.ZSTD_d_windowLogMax, MaxWindowBits);
        return unpacked;
    }
}
