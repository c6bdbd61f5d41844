using NUnit.Framework;
using Ublkback.Blkif;
using Ublkback.EmulatedHost.Frontend;

namespace Ublkback.HostTests.Fixtures;

/// <summary>Blocks that are written and read back, many at once.</summary>
internal sealed class VerifyingWrites(Blkfront disk)
{
    public async Task RunAsync(int count)
    {
        await Task.WhenAll(Enumerable.Range(0, count).Select(async i =>
        {
            byte[] data = new byte[4096], read = new byte[4096];
            new Random(i).NextBytes(data);
            Assert.That(await disk.WriteAsync((ulong)i * 8, data), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(await disk.ReadAsync((ulong)i * 8, read), Is.EqualTo(BlkifStatus.Okay));
            Assert.That(read, Is.EqualTo(data));
        }));
    }
}
