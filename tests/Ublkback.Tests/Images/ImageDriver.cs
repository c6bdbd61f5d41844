using NUnit.Framework;
using Ublkback.Block;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Workers;

namespace Ublkback.Tests.Images;

/// <summary>Uses an image from a test's thread: its requests run on a worker.</summary>
internal sealed class ImageDriver(Worker worker, IBlockImage image)
{
    private static readonly TimeSpan Soon = TimeSpan.FromSeconds(20);

    public IBlockImage Image => image;

    public async Task WriteAsync(long offset, byte[] data) =>
        Assert.That(await TryWriteAsync(offset, data), Is.EqualTo(BlockStatus.Okay));

    public Task<BlockStatus> TryWriteAsync(long offset, byte[] data) =>
        RunAsync(BlockOperation.Write, offset, data.Length, data);

    public async Task<byte[]> ReadAsync(long offset, int length)
    {
        byte[] data = new byte[length];
        Assert.That(await TryReadAsync(offset, data), Is.EqualTo(BlockStatus.Okay));
        return data;
    }

    public Task<BlockStatus> TryReadAsync(long offset, byte[] data) =>
        RunAsync(BlockOperation.Read, offset, data.Length, data);

    public async Task FlushAsync() =>
        Assert.That(await TryFlushAsync(), Is.EqualTo(BlockStatus.Okay));

    public Task<BlockStatus> TryFlushAsync() => RunAsync(BlockOperation.Flush, 0, 0, []);

    /// <summary>Gives the disk another size, and finds it so.</summary>
    public async Task ResizeAsync(long bytes)
    {
        await worker.InvokeAsync(() => image.ResizeAsync(bytes)).WaitAsync(Soon);
        Assert.That((image.Remeasure(), image.Geometry.SectorCount), Is.EqualTo((true, (ulong)bytes / 512)));
    }

    public async Task DiscardAsync(long offset, long length) =>
        Assert.That(await RunAsync(BlockOperation.Discard, offset, length, []), Is.EqualTo(BlockStatus.Okay));

    /// <summary>
    /// Writes, discards and reads at random, and compares with what the disk should hold; some requests are under way
    /// at once.
    /// </summary>
    public async Task WorkAsync(byte[] shadow, Random random, int requests, bool discards = true)
    {
        const int Together = 8;
        for (int done = 0; done < requests; done += Together)
        {
            // Requests of one round do not overlap: each has a part of the disk for itself.
            int part = shadow.Length / Together / 512 * 512;
            await Task.WhenAll(Enumerable.Range(0, Together)
                .Select(i => OneAsync(shadow, new Random(random.Next()), i * part, part, discards)));
            if (random.Next(4) == 0) await FlushAsync();
        }
    }

    private async Task OneAsync(byte[] shadow, Random random, int start, int length, bool discards)
    {
        int most = random.Next(3) == 0 ? 512 : 16;
        int count = 512 * (1 + random.Next(most));
        count = Math.Min(count, length);
        int offset = start + (512 * random.Next(((length - count) / 512) + 1));
        switch (random.Next(discards ? 8 : 6))
        {
            case < 4:
                byte[] data = new byte[count];
                random.NextBytes(data);
                await WriteAsync(offset, data);
                data.CopyTo(shadow, offset);
                break;
            case < 6:
                Assert.That(
                    (await ReadAsync(offset, count)).AsSpan().SequenceEqual(shadow.AsSpan(offset, count)), Is.True,
                    $"{count} bytes at {offset}");
                break;
            default:
                // What is there afterwards is the image's choice, until it is written.
                await DiscardAsync(offset, count);
                (await ReadAsync(offset, count)).CopyTo(shadow, offset);
                break;
        }
    }

    public async Task<BlockStatus> RunAsync(BlockOperation operation, long offset, long byteCount, byte[] data)
    {
        if (byteCount == 0 && operation != BlockOperation.Flush) return BlockStatus.Okay; // no request at all
        return await worker.InvokeAsync(async () =>
        {
            Memory<byte> memory = data.Length == 0 ? default : PinnedMemory.AllocatePages(data.Length);
            data.CopyTo(memory);
            BlockRequest request = new()
            {
                Operation = operation,
                Sector = (ulong)offset / 512,
                SectorCount = byteCount / 512,
                Data = memory
            };
            BlockStatus status = await image.HandleAsync(request);
            if (operation == BlockOperation.Read) memory.CopyTo(data);
            return status;
        }).WaitAsync(Soon);
    }
}
