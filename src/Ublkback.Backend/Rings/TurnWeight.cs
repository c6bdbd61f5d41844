using Ublkback.Linux.Workers;

namespace Ublkback.Backend.Rings;

/// <summary>
/// Tells a ring that keeps its worker busy from one that asks little now and then, whose guest waits for each answer.
/// A ring is heavy from a turn with more than <see cref="LightRequests"/> or <see cref="LightBytes"/> on, until
/// <see cref="LightTurns"/> turns in a row had less. Refused requests count too: they cost as much.
/// </summary>
[DataPath]
internal sealed class TurnWeight
{
    /// <summary>Most requests taken and answered in a light turn.</summary>
    public const int LightRequests = 16;

    /// <summary>Most bytes started and answered in a light turn.</summary>
    public const int LightBytes = 64 << 10;

    /// <summary>Light turns after which a ring is light again.</summary>
    public const int LightTurns = 16;

    private int _lightTurns = LightTurns;

    /// <summary>True if others come before the ring's next turn (<see cref="IWork.IsHeavy"/>).</summary>
    public bool IsHeavy => _lightTurns < LightTurns;

    /// <summary>A turn has ended.</summary>
    public void OnTurn(int requests, int bytes) =>
        _lightTurns = requests > LightRequests || bytes > LightBytes ? 0 : Math.Min(_lightTurns + 1, LightTurns);
}
