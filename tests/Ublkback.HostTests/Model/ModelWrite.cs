namespace Ublkback.HostTests.Model;

/// <summary>One request that changes sectors, as its sender sees it.</summary>
/// <param name="token">What its sectors hold then: see <see cref="SectorPattern"/>.</param>
/// <param name="issued">When it was sent, by the model's clock.</param>
internal sealed class ModelWrite(long token, long issued)
{
    public long Token => token;

    public long Issued => issued;

    /// <summary>When it was answered; the end of time if it was not.</summary>
    public long Answered { get; set; } = long.MaxValue;

    /// <summary>True if its sectors were looked at when it was not answered.</summary>
    public bool IsSettled { get; set; }

    /// <summary>True if a sector was later found without it, and it was not answered by then.</summary>
    public bool IsLost { get; set; }
}
