using NUnit.Framework;
using Ublkback.Linux.Kernel;
using Ublkback.Linux.Workers;

namespace Ublkback.Tests.Linux;

public sealed class BufferPoolTests
{
    private const int PageSize = MemoryMapping.PageSize;

    [Test]
    public void Buffers_start_on_pages_and_do_not_overlap()
    {
        using BufferPool pool = new(64 * PageSize);
        List<(long Start, long End)> taken = [];
        foreach (int length in new[] { 512, 4096, 4097, 45056, 20000 })
        {
            Assert.That(pool.TryRent(length, out Memory<byte> buffer), Is.True);
            long start = PinnedMemory.AddressNumberOf(buffer);
            Assert.That(buffer.Length, Is.EqualTo(length));
            Assert.That(start % PageSize, Is.Zero);
            Assert.That(
                taken,
                Has.None.Matches<(long Start, long End)>(other => start < other.End && other.Start < start + length));
            taken.Add((start, start + length));
        }
    }

    [Test]
    public void Refuses_when_full_and_joins_what_comes_back()
    {
        using BufferPool pool = new(16 * PageSize);
        List<Memory<byte>> pages = [];
        while (pool.TryRent(PageSize, out Memory<byte> page)) pages.Add(page);
        Assert.That(pages, Has.Count.EqualTo(16));

        foreach (Memory<byte> page in pages) pool.Return(page);

        Assert.That(pool.FreeBytes, Is.EqualTo(16 * PageSize));
        Assert.That(pool.TryRent(16 * PageSize, out _), Is.True, "the pages are one piece again");
    }

    [Test]
    public void Stays_whole_under_random_use()
    {
        using BufferPool pool = new(256 * PageSize);
        Random random = new(1);
        List<(Memory<byte> Buffer, byte Mark)> rented = [];
        for (int i = 0; i < 100_000; i++)
        {
            if (random.Next(2) == 0 && pool.TryRent(random.Next(1, 20 * PageSize), out Memory<byte> buffer))
            {
                byte mark = (byte)random.Next(256);
                buffer.Span[0] = mark;
                buffer.Span[^1] = mark;
                rented.Add((buffer, mark));
            }
            else if (rented.Count > 0)
            {
                int index = random.Next(rented.Count);
                (Memory<byte> returned, byte mark) = rented[index];
                Assert.That(
                    (returned.Span[0], returned.Span[^1]), Is.EqualTo((mark, mark)), "somebody else wrote there");
                pool.Return(returned);
                rented.RemoveAt(index);
            }
        }

        foreach ((Memory<byte> buffer, _) in rented) pool.Return(buffer);
        Assert.That(pool.TryRent(256 * PageSize, out _), Is.True);
    }

    [Test]
    public void Notices_a_second_return()
    {
        using BufferPool pool = new(16 * PageSize);
        pool.TryRent(PageSize, out Memory<byte> buffer);
        pool.Return(buffer);

        Assert.That(() => pool.Return(buffer), Throws.InvalidOperationException);
    }
}
