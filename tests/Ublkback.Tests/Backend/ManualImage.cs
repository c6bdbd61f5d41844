using System.Threading.Channels;
using Ublkback.Block;
using Ublkback.Linux.Workers;

namespace Ublkback.Tests.Backend;

/// <summary>An image whose requests a test sees coming and ends one by one.</summary>
public sealed class ManualImage : IBlockImage
{
    private readonly Channel<Arrival> _arrivals = Channel.CreateUnbounded<Arrival>();
    private volatile bool _endsAll;

    public string Identity => "manual";

    public ImageGeometry Geometry => new(2048, 512, 512, IsReadOnly: false, DiscardGranularity: 4096);

    /// <summary>The next request that arrives.</summary>
    public async Task<Arrival> NextAsync() =>
        await _arrivals.Reader.ReadAsync().AsTask().WaitAsync(TimeSpan.FromSeconds(20));

    /// <summary>Whether a request has arrived that was not asked for yet.</summary>
    public bool HasArrival => _arrivals.Reader.TryPeek(out _);

    /// <summary>Ends all there are and all to come.</summary>
    public void EndAll()
    {
        _endsAll = true;
        while (_arrivals.Reader.TryRead(out Arrival? arrival)) arrival.End();
    }

    public ValueTask<BlockStatus> HandleAsync(BlockRequest request)
    {
        if (_endsAll) return new ValueTask<BlockStatus>(BlockStatus.Okay);
        Arrival arrival = new(Worker.Current, request.Operation, request.Sector, request.SectorCount);
        _arrivals.Writer.TryWrite(arrival);
        return new ValueTask<BlockStatus>(arrival.Ended);
    }

    public ValueTask DisposeAsync() => default;

    /// <summary>A request below the image.</summary>
    public sealed class Arrival(Worker worker, BlockOperation operation, ulong sector, long sectorCount)
    {
        private readonly TaskCompletionSource<BlockStatus> _ended = new();

        /// <summary>What it asks.</summary>
        public (BlockOperation Operation, ulong Sector, long Count) Asked => (operation, sector, sectorCount);

        internal Task<BlockStatus> Ended => _ended.Task;

        /// <summary>Ends it, on its worker.</summary>
        public void End(BlockStatus status = BlockStatus.Okay) => worker.Post(() => _ended.TrySetResult(status));
    }
}
