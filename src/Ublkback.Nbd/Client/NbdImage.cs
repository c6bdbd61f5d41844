using System.Runtime.CompilerServices;
using Ublkback.Block;
using Ublkback.Linux.Workers;
using Ublkback.Nbd.Protocol;

namespace Ublkback.Nbd.Client;

/// <summary>
/// A disk on an NBD server: for each worker that has requests a connection of its own, if the server knows that.
/// </summary>
internal sealed class NbdImage : IBlockImage, IWorkerNeeds, IImageHealth
{
    private readonly NbdExport _export;
    private readonly bool _usesManyConnections;
    private readonly PerWorker<NbdLink> _links;
    private readonly NbdPeers _peers = new();
    private NbdConnection? _first;

    /// <summary>Makes it of a first connection.</summary>
    /// <param name="connector">Makes others.</param>
    /// <param name="first">The first.</param>
    /// <param name="geometry">The shape of the disk.</param>
    /// <param name="usesManyConnections">Whether each worker gets one.</param>
    /// <param name="maxOutage">How long requests wait for a lost server.</param>
    /// <param name="warn">Takes sentences about errors.</param>
    public NbdImage(
        NbdConnector connector, NbdConnection first, ImageGeometry geometry, bool usesManyConnections,
        TimeSpan maxOutage, Action<string> warn)
    {
        _export = first.Export;
        _first = first;
        _usesManyConnections = usesManyConnections && first.Export.Can(NbdExportFlags.MultiConnection);
        Geometry = geometry;
        Identity = connector.Name;
        _links = new PerWorker<NbdLink>(
            () => Open(
                new NbdLink(connector, Interlocked.Exchange(ref _first, null), _export, maxOutage, _peers, warn)));
    }

    public ImageGeometry Geometry { get; }

    public string Identity { get; }

    public bool AllowsManyWorkers => _usesManyConnections;

    public string? Trouble =>
        _peers.All.Select(opened => opened.Link.Trouble).FirstOrDefault(trouble => trouble is not null);

    public ValueTask<BlockStatus> HandleAsync(BlockRequest request)
    {
        SeamAssert.IsValid(request, Geometry, Identity);
        NbdLink link = _links.Current;
        long offset = (long)request.Sector * BlockRequest.SectorSize;
        switch (request.Operation)
        {
            case BlockOperation.Read:
                return CallAsync(link, NbdCommand.Read, 0, offset, request.Data);
            case BlockOperation.Write:
                bool isDurable = !_export.Can(NbdExportFlags.Flush) && _export.Can(NbdExportFlags.ForceUnitAccess);
                ushort flags = isDurable ? NbdProtocol.ForceUnitAccess : (ushort)0;
                bool isZeros = _export.Can(NbdExportFlags.WriteZeroes) && !request.Data.Span.ContainsAnyExcept((byte)0);
                return isZeros
                    ? CallAsync(
                        link, NbdCommand.WriteZeroes,
                        (ushort)(flags | (Geometry.DiscardGranularity == 0 ? NbdProtocol.NoHole : 0)), offset,
                        request.Data)
                    : CallAsync(link, NbdCommand.Write, flags, offset, request.Data);
            case BlockOperation.Flush:
                return _export.Can(NbdExportFlags.Flush)
                    ? link.CallAsync(NbdCommand.Flush, 0, 0, 0, default)
                    : new ValueTask<BlockStatus>(BlockStatus.Okay);
            case BlockOperation.Discard:
                return TrimAsync(link, offset, request.SectorCount * BlockRequest.SectorSize);
            default:
                return new ValueTask<BlockStatus>(BlockStatus.Unsupported);
        }
    }

    public async ValueTask DisposeAsync()
    {
        foreach ((Worker worker, NbdLink link) in _peers.All)
            await worker.InvokeAsync(link.CloseAsync).ConfigureAwait(false);

        Interlocked.Exchange(ref _first, null)?.Abort();
    }

    private NbdLink Open(NbdLink link)
    {
        _peers.Add(Worker.Current, link);
        link.Start();
        return link;
    }

    private ValueTask<BlockStatus> CallAsync(
        NbdLink link, NbdCommand command, ushort flags, long offset, Memory<byte> data) =>
        data.Length <= _export.MaxBlock
            ? link.CallAsync(command, flags, offset, data.Length, data)
            : CallInPartsAsync(link, command, flags, offset, data);

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private async ValueTask<BlockStatus> CallInPartsAsync(
        NbdLink link, NbdCommand command, ushort flags, long offset, Memory<byte> data)
    {
        BlockStatus status = BlockStatus.Okay;
        int unit = _export.MaxBlock / Geometry.SectorSize * Geometry.SectorSize;
        while (!data.IsEmpty && status == BlockStatus.Okay)
        {
            Memory<byte> part = data[..Math.Min(unit, data.Length)];
            status = await link.CallAsync(command, flags, offset, part.Length, part);
            offset += part.Length;
            data = data[part.Length..];
        }

        return status;
    }

    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    private static async ValueTask<BlockStatus> TrimAsync(NbdLink link, long offset, long length)
    {
        const int MaxTrim = 1 << 30;
        BlockStatus status = BlockStatus.Okay;
        while (length > 0 && status == BlockStatus.Okay)
        {
            int part = (int)Math.Min(length, MaxTrim);
            status = await link.CallAsync(NbdCommand.Trim, 0, offset, part, default);
            offset += part;
            length -= part;
        }

        return status;
    }
}
