using System.Runtime.CompilerServices;

namespace Ublkback.Block;

/// <summary>
/// The seam between a hook and what lies below it, or between the disk's rings and the topmost. It lets only valid requests
/// pass, each once at a time, gives them back as they came, and turns an exception into a failed request; who broke a rule
/// is named in the log.
/// </summary>
public sealed class BlockNext
{
    private readonly int _depth; // from 1, at the top
    private readonly string? _above; // the hook that uses this seam; null at the top
    private readonly string _below;
    private readonly BlockHook? _hook; // what lies below is a hook with a seam of its own, or the image
    private readonly BlockNext? _next;
    private readonly IBlockImage _image;
    private readonly Action<string> _warn;
    private volatile ImageGeometry _geometry;

    internal BlockNext(int depth, string? above, string below, BlockHook? hook, BlockNext? next, IBlockImage image, Action<string> warn)
    {
        _depth = depth;
        _above = above;
        _below = below;
        _hook = hook;
        _next = next;
        _image = image;
        _warn = warn;
        _geometry = Measure();
    }

    /// <summary>Size, sector sizes and access of what lies below. Any thread.</summary>
    public ImageGeometry Geometry => _geometry;

    /// <summary>Has what lies below handle a request, and ends when it has. On the disk's loop.</summary>
    [AsyncMethodBuilder(typeof(RecyclingMethodBuilder<>))]
    public async ValueTask<BlockStatus> HandleAsync(BlockRequest request)
    {
        ArgumentNullException.ThrowIfNull(request);
        if (request.Depth >= _depth) return Refuse("passed on a request that is below it already");
        // What comes from a ring was checked there.
        if (_above is not null && request.FindFault(_geometry) is string fault) return Refuse($"passed on a bad request: {fault}");

        int depth = request.Depth;
        BlockOperation operation = request.Operation;
        ulong sector = request.Sector;
        long sectorCount = request.SectorCount;
        Memory<byte> data = request.Data;
        request.Depth = _depth;
        try
        {
            return await (_hook is null ? _image.HandleAsync(request) : _hook.HandleAsync(request, _next!));
        }
        catch (Exception failure)
        {
            _warn($"{_below} failed: {failure.GetType().Name}: {failure.Message}");
            return BlockStatus.IoError;
        }
        finally
        {
            request.Depth = depth;
            request.Operation = operation;
            request.Sector = sector;
            request.SectorCount = sectorCount;
            request.Data = data;
        }
    }

    /// <summary>Looks at the geometry below once more.</summary>
    internal void Remeasure()
    {
        _next?.Remeasure();
        _geometry = Measure();
    }

    private ImageGeometry Measure() => _hook is null ? _image.Geometry : _hook.Measure(_next!.Geometry);

    private BlockStatus Refuse(string what)
    {
        _warn($"{_above} {what}");
        return BlockStatus.IoError;
    }
}
