using System.Globalization;
using Ublkback.Blkif;
using Ublkback.EmulatedHost.Hypervisor;
using Ublkback.Xen;

namespace Ublkback.EmulatedHost.Frontend;

/// <summary>One queue of a frontend: its ring in granted pages and its event channel.</summary>
public sealed class FrontQueue : IDisposable
{
    private readonly EmulatedGuest _guest;
    private readonly uint[] _ringReferences;

    internal FrontQueue(EmulatedGuest guest, int backendDomid, BlkfrontOptions options)
    {
        _guest = guest;
        int order = options.RingPageOrder ?? 0;
        uint page = guest.AllocatePages(1 << order);
        Ring = new FrontRing(guest.AddressOf(page), order, options.Abi);
        _ringReferences = [.. Enumerable.Range(0, 1 << order).Select(i => guest.Grant(page + (uint)i, backendDomid))];
        (Port, Channel) = guest.AllocatePort();
    }

    /// <summary>Our end of the ring.</summary>
    public FrontRing Ring { get; }

    /// <summary>Our end of the event channel.</summary>
    public IEventChannel Channel { get; }

    /// <summary>Our port.</summary>
    public uint Port { get; }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (uint reference in _ringReferences) _guest.Revoke(reference);
        Channel.Dispose();
    }

    /// <summary>The nodes that tell the backend of this queue.</summary>
    internal IEnumerable<(string Name, string Value)> Describe(bool hasOrder)
    {
        yield return ("event-channel", Port.ToString(CultureInfo.InvariantCulture));
        for (int i = 0; i < _ringReferences.Length; i++)
        {
            yield return (
                hasOrder ? string.Create(CultureInfo.InvariantCulture, $"ring-ref{i}") : "ring-ref",
                _ringReferences[i].ToString(CultureInfo.InvariantCulture));
        }
    }
}
