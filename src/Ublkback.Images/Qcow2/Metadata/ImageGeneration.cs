using System.Diagnostics;
using Ublkback.Block;
using Ublkback.Images.Qcow2.Format;

namespace Ublkback.Images.Qcow2.Metadata;

/// <summary>
/// Binds the log to the content of its image: a number in the image's header that the log has too. It changes with each
/// commit, before the first change after a commit, and before a change when it is older than <see cref="MaxAge"/>. So a
/// log is not taken for that of an earlier or later state of the file. On the image's worker.
/// </summary>
/// <remarks>
/// The number is in the upper half of the header's autoclear features (qcow2 specification, "Autoclear feature bits").
/// A program that does not know such a bit must clear it when it opens the image to write it.
/// </remarks>
/// <param name="header">The image's header when it was opened.</param>
/// <param name="headerFile">The header in the file.</param>
/// <param name="log">The log.</param>
internal sealed class ImageGeneration(Qcow2Header header, HeaderFile headerFile, MetadataLog log)
{
    /// <summary>A copy of the file that is no older than this cannot be told from the file itself.</summary>
    public static readonly TimeSpan MaxAge = TimeSpan.FromMilliseconds(20);

    private readonly bool _isBound = log.IsKept && header.Version >= 3;
    private readonly LoopMutex _turns = new();
    private bool _isOpen; // changes of this generation may be added to the log
    private long _since; // when the image got it

    /// <summary>Whether a change may be added to the log now.</summary>
    public bool IsCurrent => !_isBound || (_isOpen && Stopwatch.GetElapsedTime(_since) < MaxAge);

    /// <summary>Says in the image that it has changes of which only the log knows, and which log.</summary>
    public async ValueTask<BlockStatus> SetDirtyAsync() // off the path: once for each opening
    {
        await _turns.EnterAsync();
        BlockStatus status = await ChangeAsync(setsDirty: true);
        _turns.Leave();
        return status;
    }

    /// <summary>Sees to it that a change may be added to the log.</summary>
    public async ValueTask<BlockStatus> BeginAsync() // off the path: once in a commit, or in MaxAge
    {
        await _turns.EnterAsync();
        BlockStatus status = IsCurrent ? BlockStatus.Okay : await ChangeAsync(setsDirty: false);
        _turns.Leave();
        return status;
    }

    /// <summary>A commit has brought changes into the file, which are not durable yet.</summary>
    public async ValueTask<BlockStatus> EndAsync() // off the path: once in a commit
    {
        if (!_isBound) return BlockStatus.Okay;
        await _turns.EnterAsync();
        BlockStatus status = await ChangeAsync(setsDirty: false);
        _isOpen = false;
        _turns.Leave();
        return status;
    }

    // The log names both numbers while the header may have either.
    private async ValueTask<BlockStatus> ChangeAsync(bool setsDirty) // off the path: as its callers
    {
        // The log has room for one number that the header may have: after a failed write it has it.
        BlockStatus status = await headerFile.EnsureAsync();
        if (status != BlockStatus.Okay) return status;
        uint next = _isBound ? Next() : 0;
        log.NextGeneration = next;
        status = setsDirty
            ? await headerFile.SetDirtyAsync(next)
            : await headerFile.SetGenerationAsync(next);
        _isOpen = status == BlockStatus.Okay;
        if (!_isOpen) return status;
        log.Generation = next;
        _since = Stopwatch.GetTimestamp();
        return status;
    }

    // Always random: two copies of an image that go on apart have no number in common. 0 is none.
    private static uint Next() => (uint)Random.Shared.NextInt64(1, 1L << 32);
}
