namespace Ublkback.HostTests.Model;

/// <summary>A guest's thread: changes random sectors of a disk, and tells the model.</summary>
internal sealed class ModelWriter(ModelDisk disk, NbdClient client, ModelClock clock, Random random)
{
    private const int BlockSectors = 8;
    private const int MaxSectors = 96;

    private readonly byte[] _data = new byte[MaxSectors * SectorPattern.Size];

    /// <summary>Writes until it is stopped, or a request is not done.</summary>
    public async Task RunAsync(CancellationToken stopping)
    {
        while (!stopping.IsCancellationRequested && await WriteAsync()) { }
    }

    // False if a request was not done: then nobody knows what its sectors hold.
    private async Task<bool> WriteAsync()
    {
        // A guest pauses at times, so that the commands get a turn.
        if (random.Next(4) == 0) await Task.Delay(random.Next(8));
        int kind = random.Next(20);
        if (kind == 0) return await client.FlushAsync() == NbdResult.Done;
        int count = 1 + random.Next(random.Next(4) == 0 ? MaxSectors : BlockSectors * 2);
        int first = random.Next(Math.Max(1, Math.Min(client.Sectors, disk.Sectors) - count));
        if (random.Next(2) == 0 || kind <= 2)
        {
            // Whole blocks; only those does a discard change.
            first -= first % BlockSectors;
            count = Math.Max(BlockSectors, count - (count % BlockSectors));
        }

        long token = kind <= 4 ? SectorPattern.Zeros : clock.Next();
        ModelWrite? write = disk.TryBegin(first, count, token, clock);
        if (write is null) return true;
        NbdResult result = kind switch
        {
            <= 2 => await client.DiscardAsync(first, count),
            <= 4 => await client.WriteZerosAsync(first, count),
            _ => await client.WriteAsync(first, Fill(token, first, count)),
        };
        if (result != NbdResult.Done) return false;
        disk.End(write, first, count, clock);
        return true;
    }

    private Memory<byte> Fill(long token, int first, int count)
    {
        Memory<byte> data = _data.AsMemory(0, count * SectorPattern.Size);
        SectorPattern.Fill(data.Span, token, first);
        return data;
    }
}
